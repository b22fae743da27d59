"""A tiny upstream model and rows for it, made up in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.data.tiny_log import at
from trainers.data.examples import Examples
from trainers.modules.embedding import FieldEmbeddingConfig
from trainers.modules.side import SequenceInputs, SideConfig
from trainers.upstream import recipes
from trainers.upstream.model import UpstreamConfig
from trainers.upstream.trainer import UpstreamExamples, UpstreamTrainer
from trainers.upstream.walk import WalkData, WalkPlan

NUM_USERS, NUM_PINS, LENGTH = 12, 9, 3
TASKS = ("click", "like")
RECIPE = replace(recipes.tiny(), token_dim=4, batch_size=16)
CONFIG = UpstreamConfig(
    user=SideConfig(
        fields=FieldEmbeddingConfig(
            side="user", field_dim=4, num_dense=2, id_buckets=(16, 0), id_dropout=0.5, sparse_ids=True
        ),
        sequences=(SequenceInputs(pins="user_id_1", length=LENGTH),),
        normalise_dense=True,
    ),
    pin=SideConfig(
        fields=FieldEmbeddingConfig(
            side="pin", field_dim=4, num_dense=1, id_buckets=(16,), vector_dims=(2,), sparse_ids=True
        ),
        normalise_dense=True,
    ),
    context=FieldEmbeddingConfig(side="context", field_dim=4, categorical_sizes=(4, 25)),
    tasks=TASKS,
    output_tokens=2,
    hidden_tokens=4,
    tower_layers=(("masknet", "mlp"),),
    interaction_layers=(("transformer", "mlp"),),
)


def trainer(seed: int = 3, **changes: Any) -> UpstreamTrainer:
    """A fresh trainer."""
    return UpstreamTrainer(CONFIG, replace(RECIPE, **changes), seed)


def user_inputs(random: np.random.Generator, users: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.generic]]:
    """Encoded users; some sequences are empty, some numbers missing."""
    count = len(users)
    shown = np.arange(LENGTH) < random.integers(0, LENGTH + 1, count)[:, None]
    missing = (random.random((count, 2)) < 0.2).astype(np.float32)
    values = random.normal(size=(count, 2)).astype(np.float32) * (1 - missing)
    return {
        "user_dense": np.concatenate([values, missing], axis=1),
        "user_id_0": (users + 1).astype(np.int32),
        "user_id_1": (random.integers(1, 16, (count, LENGTH)) * shown).astype(np.int32),
    }


def pin_inputs(random: np.random.Generator, pins: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.generic]]:
    """Encoded Pins."""
    count = len(pins)
    return {
        "pin_dense": np.concatenate([random.normal(size=(count, 1)), np.zeros((count, 1))], 1).astype(np.float32),
        "pin_id_0": (pins + 1).astype(np.int32),
        "pin_vector_0": np.concatenate([random.normal(size=(count, 2)), np.ones((count, 1))], 1).astype(np.float32),
    }


def rows(count: int, seed: int = 0) -> UpstreamExamples:
    """Impressions with random labels, the second task defined on half of them."""
    random = np.random.default_rng(seed)
    users, pins = random.integers(0, NUM_USERS, count), random.integers(0, NUM_PINS, count)
    labels = random.integers(0, 2, (count, 2)).astype(np.float32)
    labels[random.random(count) < 0.5, 1] = np.nan
    context = np.stack([random.integers(0, 4, count), random.integers(0, 25, count)], axis=1).astype(np.int32)
    inputs = {**user_inputs(random, users), **pin_inputs(random, pins), "context_categorical": context}
    return UpstreamExamples(examples=Examples(inputs=inputs, labels=labels), user_ids=users, pin_ids=pins)


def active(entity: str, cutoff: datetime) -> tuple[npt.NDArray[np.int64], Examples]:
    """All entities, with inputs that follow from the day."""
    random = np.random.default_rng([cutoff.day, entity == "user"])
    keys = np.arange(NUM_USERS if entity == "user" else NUM_PINS)
    inputs = user_inputs(random, keys) if entity == "user" else pin_inputs(random, keys)
    return keys, Examples(inputs=inputs, labels=np.empty((len(keys), 0), np.float32))


def known_at(*days_of_rows: int) -> npt.NDArray[np.int64]:
    """Moments, an hour apart from noon on: so many rows on January 1st, 2nd, and so on."""
    moments = [
        at(1 + day, 12) + timedelta(minutes=minute) for day, count in enumerate(days_of_rows) for minute in range(count)
    ]
    return np.array([round(moment.timestamp() * 1e6) for moment in moments], np.int64)


def data(
    stream: UpstreamExamples, known: npt.NDArray[np.int64], history: tuple[UpstreamExamples, ...] = ()
) -> WalkData:
    """Rows to walk over."""
    return WalkData(
        stream=stream,
        known_at=known,
        tasks=TASKS,
        entities=lambda entity, cutoff: [active(entity, cutoff)],
        history=history,
        num_history=sum(len(each.user_ids) for each in history),
    )


def plan(out: Path, num_days: int, embed_from: int = 2) -> WalkPlan:
    """Cut-offs at the starts of January 1st to the day after the last."""
    return WalkPlan(
        model="ctr",
        cutoffs=tuple(at(1 + day) for day in range(num_days + 1)),
        embed_from=at(embed_from),
        out=out,
        seed=7,
    )
