"""Generated data with known probabilities: any number of users, Pins and days, in bounded memory.

Dims: U users, P Pins, L latent width, N impressions of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainers.data.adapters.adapter import AdapterOptions
from trainers.data.dataset import Attribute, Conversion, DatasetSpec, Task, Window
from trainers.data.ingest import Progress
from trainers.data.raw_days import leave_unchanged

IMPRESSION = "A generated showing of a Pin to a user: users by their activity, Pins by their popularity."
CLICK = "Drawn with the true click probability of the user, the Pin, the surface and the day."
CONVERSION = (
    "A `purchase`, drawn for clicked impressions with its own true probability and an exponential delay whose mean is "
    "a third of the attribution window."
)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_START = datetime(2024, 1, 1, tzinfo=UTC)
_LATENT_DIM = 8
_IMPRESSIONS_PER_USER_DAY = 2.15
_CHUNK_ROWS = 250_000
_SURFACES = ("home", "search", "related")
_SURFACE_SHARES = (0.6, 0.25, 0.15)
_SURFACE_EFFECTS = (0.0, 0.7, -0.5)
_CLICK_BASE, _CLICK_AFFINITY = -1.9, 1.6
_CONVERSION_BASE, _CONVERSION_AFFINITY = -1.8, 1.6
_DRIFT_DAYS = 180
"""Days in which a user's interests turn a quarter of a circle towards new ones."""
_DAY_US = 86_400_000_000
_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Everything that is true of the generated users and Pins."""

    interests: Floats
    """What users click on at the start, [U, L]; `later_interests` is what they turn to."""
    later_interests: Floats
    needs: Floats
    """What users buy, [U, L]: another space than their interests."""
    topics: Floats
    """What Pins show, [P, L]."""
    uses: Floats
    """What Pins are good for, [P, L]."""
    activity: Array
    """Share of impressions that go to a user, cumulated, [U]."""
    popularity: Floats
    """Log-odds that every user grants a Pin, [P]."""
    exposure: Array
    """Share of impressions that go to a Pin, cumulated, [P]."""

    @classmethod
    def generate(cls, options: AdapterOptions) -> World:
        """The world of a seed."""
        random = np.random.default_rng([options.seed, 0])
        num_users, num_pins = _num_users(options), options.num_pins
        popularity = random.normal(0.0, 0.7, num_pins)
        return cls(
            interests=_latents(random, num_users),
            later_interests=_latents(random, num_users),
            needs=_latents(random, num_users),
            topics=_latents(random, num_pins),
            uses=_latents(random, num_pins),
            activity=_cumulated(random.lognormal(0.0, 1.0, num_users)),
            popularity=popularity.astype(np.float32),
            exposure=_cumulated(np.exp(0.8 * popularity + random.normal(0.0, 0.5, num_pins))),
        )

    def pclick(self, users: Array, pins: Array, surfaces: Array, day: int) -> Array:
        """True click probability of each impression, [N]."""
        turn = 0.5 * np.pi * day / _DRIFT_DAYS
        interests = np.cos(turn) * self.interests[users] + np.sin(turn) * self.later_interests[users]
        affinity = np.einsum("nl,nl->n", interests, self.topics[pins])
        effect = np.asarray(_SURFACE_EFFECTS)[surfaces]
        return _sigmoid(_CLICK_BASE + _CLICK_AFFINITY * affinity + self.popularity[pins] + effect)

    def pconversion(self, users: Array, pins: Array) -> Array:
        """True probability that a click ever converts, [N]."""
        affinity = np.einsum("nl,nl->n", self.needs[users], self.uses[pins])
        return _sigmoid(_CONVERSION_BASE + _CONVERSION_AFFINITY * affinity)


class Synthetic:
    __doc__ = f"""Seeded data whose best possible predictions are known.

    Impression: {IMPRESSION}
    Click: {CLICK}
    Conversion: {CONVERSION}

    Latent vectors of users and Pins, Pin popularity and surfaces give the true probabilities, kept in `truth.parquet`:
    `true_pclick`, and `true_pconversion`, the probability that a click converts inside the attribution window.
    Interests drift slowly, so that stale embeddings lose. Attributes are noisy views of the latent vectors.
    """

    name = "synthetic"

    def spec(self, options: AdapterOptions) -> DatasetSpec:
        """Declaration of the dataset: the last seventh of the days are test, the third before them train."""
        until = _START + timedelta(days=options.num_days)
        test_from = until - timedelta(days=max(1, options.num_days // 7))
        train_from = test_from - timedelta(days=max(2, options.num_days // 3))
        features_from = min(_START + timedelta(days=options.num_days // 7), train_from - timedelta(days=1))
        return DatasetSpec(
            name=self.name,
            title=f"Synthetic, {_num_users(options):,} users, {options.num_pins:,} Pins, {options.num_days} days",
            license="generated",
            impression=IMPRESSION,
            click=CLICK,
            conversion=CONVERSION,
            labels=("click",),
            conversions=(Conversion(kind="purchase", attribution_days=_attribution_days(options)),),
            tasks=(
                Task(name="click", label="click", domain="engagement"),
                Task(name="purchase", label="purchase", domain="conversion", given="click"),
            ),
            ctr_task="click",
            cvr_task="purchase",
            user_attributes=(
                Attribute(name="segment", kind="categorical"),
                Attribute(name="tenure_days", kind="dense", type="float"),
                Attribute(name="liked_topics", kind="multi_valued", type="int64"),
            ),
            pin_attributes=(
                Attribute(name="category", kind="categorical"),
                Attribute(name="quality", kind="dense", type="float"),
                Attribute(name="topics", kind="multi_valued", type="int64"),
                Attribute(name="content", kind="vector", type="float", dim=_LATENT_DIM),
            ),
            pin_title="category",
            window=Window(features_from=features_from, train_from=train_from, test_from=test_from, until=until),
        )

    def stage(self, staging: Path, options: AdapterOptions, progress: Progress) -> None:
        """Write impressions, conversions, users, Pins and the true probabilities, a chunk at a time."""
        world = World.generate(options)
        pq.write_table(_users(world, options), staging / "users.parquet")
        pq.write_table(_pins(world, options), staging / "pins.parquet")
        writers: dict[str, pq.ParquetWriter] = {}
        with ExitStack() as stack:
            for share, tables in _chunks(world, options):
                for name, table in tables.items():
                    if name not in writers:
                        writer = pq.ParquetWriter(staging / f"{name}.parquet", table.schema)
                        writers[name] = stack.enter_context(writer)
                    writers[name].write_table(_since(table, options.since))
                progress("generating", share)
        if options.since is not None:
            leave_unchanged(staging)


def _since(table: pa.Table, since: datetime | None) -> pa.Table:
    """The events from a moment on: any day may bring conversions of every later one, so all days are drawn."""
    if since is None or "event_timestamp" not in table.column_names:
        return table
    return table.filter(pc.greater_equal(table["event_timestamp"], pa.scalar(since, _TIME)))


def _chunks(world: World, options: AdapterOptions) -> Iterator[tuple[float, dict[str, pa.Table]]]:
    """Share of the work done and the staged tables of each chunk, in order of time within a day."""
    next_id = 1
    for day in range(options.num_days):
        random = np.random.default_rng([options.seed, 1, day])
        left = int(random.poisson(_IMPRESSIONS_PER_USER_DAY * _num_users(options)))
        num_chunks = max(1, -(-left // _CHUNK_ROWS))
        for chunk in range(num_chunks):
            rows = left // num_chunks + (chunk < left % num_chunks)
            if not rows:
                continue
            span = (day + chunk / num_chunks, day + (chunk + 1) / num_chunks)
            yield (day + 1) / options.num_days, _chunk(world, options, random, span, rows, next_id)
            next_id += rows


def _chunk(
    world: World,
    options: AdapterOptions,
    random: np.random.Generator,
    span: tuple[float, float],
    rows: int,
    first_id: int,
) -> dict[str, pa.Table]:
    users = np.searchsorted(world.activity, random.random(rows)).astype(np.int64)
    pins = np.searchsorted(world.exposure, random.random(rows)).astype(np.int64)
    surfaces = random.choice(len(_SURFACES), rows, p=_SURFACE_SHARES)
    times_us = np.sort(random.integers(int(span[0] * _DAY_US), int(span[1] * _DAY_US), rows))
    pclick, pconversion = world.pclick(users, pins, surfaces, int(span[0])), world.pconversion(users, pins)
    clicked = random.random(rows) < pclick
    converted = clicked & (random.random(rows) < pconversion)
    window_days = _attribution_days(options)
    delays_us = (random.exponential(window_days / 3, rows) * _DAY_US).astype(np.int64)
    ids = np.arange(first_id, first_id + rows)
    impressions = {
        "impression_id": ids,
        "user_id": users,
        "pin_id": pins,
        "surface": np.asarray(_SURFACES)[surfaces],
        "event_timestamp": _times(times_us),
        "click": clicked.astype(np.int8),
    }
    conversions = {
        "impression_id": ids[converted],
        "event_timestamp": _times((times_us + delays_us)[converted]),
        "kind": pa.array(["purchase"] * int(converted.sum()), pa.string()),
        "value": random.lognormal(2.0, 0.5, rows)[converted],
    }
    truth = {
        "impression_id": ids,
        "true_pclick": pclick,
        "true_pconversion": pconversion * (1.0 - np.exp(-3.0)),
    }
    return {"impressions": pa.table(impressions), "conversions": pa.table(conversions), "truth": pa.table(truth)}


def _users(world: World, options: AdapterOptions) -> pa.Table:
    random = np.random.default_rng([options.seed, 2])
    num_users = len(world.interests)
    return pa.table(
        {
            "user_id": np.arange(num_users),
            "event_timestamp": _times(np.zeros(num_users, np.int64)),
            "segment": _segments(random, world.needs),
            "tenure_days": np.exp(5.0 + 1.5 * world.interests[:, 0] + random.normal(0.0, 0.5, num_users)),
            "liked_topics": _strongest(random, world.interests),
        }
    )


def _pins(world: World, options: AdapterOptions) -> pa.Table:
    random = np.random.default_rng([options.seed, 3])
    num_pins = len(world.topics)
    content = (world.topics + random.normal(0.0, 0.2, world.topics.shape)).astype(np.float32)
    return pa.table(
        {
            "pin_id": np.arange(num_pins),
            "event_timestamp": _times(np.zeros(num_pins, np.int64)),
            "category": _segments(random, world.uses),
            "quality": world.popularity + random.normal(0.0, 0.5, num_pins),
            "topics": _strongest(random, world.topics),
            "content": _lists(content),
        }
    )


def _segments(random: np.random.Generator, latents: Floats) -> pa.Array:
    """Name of the direction, of 2 L, that a noisy latent vector points to most."""
    noisy = latents + random.normal(0.0, 0.2, latents.shape)
    strongest = np.argmax(np.concatenate([noisy, -noisy], axis=1), axis=1)
    return pa.array([f"c{number:02}" for number in strongest], pa.string())


def _strongest(random: np.random.Generator, latents: Floats) -> pa.Array:
    """Indices of the three largest noisy components of each vector."""
    noisy = latents + random.normal(0.0, 0.2, latents.shape)
    return _lists(np.argsort(-noisy, axis=1)[:, :3].astype(np.int64))


def _lists(values: Array) -> pa.Array:
    rows, width = values.shape
    offsets = np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))


def _times(offsets_us: Array) -> pa.Array:
    """Timestamps so many microseconds after the start of the log."""
    start_us = int(_START.timestamp()) * 1_000_000
    return pa.array(offsets_us + start_us, pa.int64()).cast(_TIME)


def _latents(random: np.random.Generator, count: int) -> Floats:
    return np.asarray(random.normal(0.0, 1.0, (count, _LATENT_DIM)) / _LATENT_DIM**0.25, dtype=np.float32)


def _cumulated(weights: Array) -> Array:
    cumulated = np.cumsum(weights)
    return np.asarray(cumulated / cumulated[-1])


def _sigmoid(logits: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def _num_users(options: AdapterOptions) -> int:
    return max(2, round(options.num_users * options.scale))


def _attribution_days(options: AdapterOptions) -> int:
    return max(1, min(14, options.num_days // 7))
