"""The walk forward in time: for every day, train on what is known by its cut-off, then embed the active entities.

A model never sees a row before it has been scored on it, so the scores of each day are an honest learning curve, and
an embedding stamped with a cut-off comes from rows and labels that were known by then.
Dims: N rows, T tasks, E width of an embedding.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.contract import ENTITIES, join_key
from trainers.anomalies import AnomalyGuard
from trainers.data.examples import Examples, Rows
from trainers.metrics import roc_auc
from trainers.parallel import leads, wait_for_all
from trainers.progress import Progress, Stage
from trainers.upstream.trainer import UpstreamExamples, UpstreamTrainer
from trainers.upstream.vector_files import vector_column, write_tables

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
PROGRESSIVE_FILE = "progressive.json"
"""What the model scored on each day before it learned from it, in a version's folder."""

Moments = npt.NDArray[np.int64]
EntityChunks = Iterable[tuple[npt.NDArray[np.int64], Examples]]
"""Keys and encoded inputs of entities of one kind, a chunk at a time; one chunk at least."""
EntityInputs = Callable[[str, datetime], EntityChunks]
"""Those that are active at a cut-off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkData:
    """What one upstream model walks over."""

    stream: UpstreamExamples
    """Everything that the model learns, row by row."""
    known_at: Moments
    """Microseconds since the epoch at which all labels of a row are known."""
    tasks: tuple[str, ...]
    """Tasks, in the order of the label columns."""
    entities: EntityInputs
    """Where entities to embed come from."""
    history: Iterable[UpstreamExamples] = ()
    """Chunks of interactions from before the log; seen once, first."""
    num_history: int = 0
    """Rows of all chunks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkPlan:
    """When a model trains and from when its embeddings are kept."""

    model: str
    """Upstream model: `ctr`, `cvr` or `unified`."""
    cutoffs: tuple[datetime, ...]
    """Daily data cut-offs, increasing."""
    embed_from: datetime
    """First cut-off whose embeddings are written."""
    out: Path
    """Folder of the model's checkpoint and daily embeddings."""
    seed: int
    """Seed of every random choice."""


def daily_file(out: Path, entity: str, cutoff: datetime) -> Path:
    """File with the embeddings of one cut-off, before averaging."""
    return out / "daily" / entity / f"date={cutoff:%Y-%m-%d}.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class DayRows:
    """What a model learns from on one day."""

    stream: UpstreamExamples
    """Encoded rows, these among them."""
    new: Rows
    """Positions of the rows whose labels became final since the cut-off before."""
    replayed: Rows
    """Positions of a sample of those known before."""

    def __len__(self) -> int:
        return len(self.new) + len(self.replayed)


def walk(
    trainer: UpstreamTrainer,
    data: WalkData,
    plan: WalkPlan,
    progress: Progress,
    *,
    keep: Callable[[datetime], None] | None = None,
) -> list[dict[str, Any]]:
    """Train through every cut-off, resuming after the last one that was checkpointed.

    Args:
        keep: Called at each cut-off from `embed_from` on, with the model as of then; writes the embeddings of the
            active entities when not given.

    Returns:
        The progressive evaluation: `{model, day, task, roc_auc, n}` of each day, scored before training on it.
    """
    file = plan.out / CHECKPOINT
    notes = trainer.load(file) if file.exists() else {"cutoff": None, "progressive": []}
    # Until all have read it, none may write the next.
    wait_for_all()
    if notes["cutoff"] is None:
        _pretrain(trainer, data, plan, progress)
    curve: list[dict[str, Any]] = notes["progressive"]
    saved = time.monotonic()
    done = datetime.fromisoformat(notes["cutoff"]) if notes["cutoff"] else None
    spans = [(start, end) for start, end in _spans(plan.cutoffs) if done is None or end > done]
    with progress.stage(f"train {plan.model}", sum(_work(trainer, data, *span) for span in spans)) as stage:
        for start, end in spans:
            rng = generator(plan.seed, plan.model, end)
            new, replayed = select_rows(data.known_at, start, end, trainer.recipe.replay, rng)
            day = DayRows(stream=data.stream, new=new, replayed=replayed)
            curve += learn_day(trainer, day, data.tasks, plan.model, end, rng, stage)
            if end >= plan.embed_from:
                (keep or _embedding(trainer, data, plan))(end)
            due = end == plan.cutoffs[-1] or time.monotonic() - saved >= trainer.recipe.checkpoint_seconds
            if due and leads():
                trainer.save(file, {"cutoff": end.isoformat(), "progressive": curve})
                saved = time.monotonic()
    return curve


def select_rows(
    known_at: Moments, start: datetime | None, end: datetime, replay: float, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """Rows that a day trains on: those known in [`start`, `end`), and a sample of those known before.

    Args:
        known_at: Moment at which all labels of each row are known.
        start: The cut-off before; none at the first, to which every earlier row is new.
        replay: Size of the sample, relative to the new rows.
    """
    new = _known_between(known_at, start, end)
    earlier = np.setdiff1d(np.flatnonzero(known_at < _micros(end)), new, assume_unique=True)
    return new, rng.choice(earlier, min(len(earlier), int(len(new) * replay)), replace=False)


def learn_day(
    trainer: UpstreamTrainer,
    day: DayRows,
    tasks: Sequence[str],
    model: str,
    end: datetime,
    rng: np.random.Generator,
    stage: Stage,
) -> list[dict[str, Any]]:
    """Score the new rows, then train on all of them; returns the scores' figures, a row a task."""
    curve = _progressive(trainer, day, tasks, model, end)
    rows = np.concatenate([day.new, day.replayed])
    subject = f"{model} on {_named(end)}"
    trainer.fit(day.stream, rows, lr=trainer.recipe.daily_lr, rng=rng, stage=stage, subject=subject)
    return curve


def _named(end: datetime) -> str:
    """Date of the day that ends at a cut-off."""
    return (end - timedelta(days=1)).date().isoformat()


def _spans(cutoffs: Sequence[datetime]) -> list[tuple[datetime | None, datetime]]:
    """Every cut-off with the one before."""
    return list(zip((None, *cutoffs), cutoffs, strict=False))


def _micros(moment: datetime | None) -> int:
    return np.iinfo(np.int64).min if moment is None else round(moment.timestamp() * 1_000_000)


def _known_between(known_at: Moments, start: datetime | None, end: datetime) -> Rows:
    return np.flatnonzero((known_at >= _micros(start)) & (known_at < _micros(end)))


def _work(trainer: UpstreamTrainer, data: WalkData, start: datetime | None, end: datetime) -> int:
    return int(len(_known_between(data.known_at, start, end)) * (1.0 + trainer.recipe.replay))


def generator(seed: int, model: str, moment: datetime) -> np.random.Generator:
    """Source of every random choice that a model makes on one day."""
    return np.random.default_rng([seed, zlib.crc32(model.encode()), _micros(moment) // 1_000_000])


def _pretrain(trainer: UpstreamTrainer, data: WalkData, plan: WalkPlan, progress: Progress) -> None:
    if not data.num_history:
        return
    rng = generator(plan.seed, plan.model, plan.cutoffs[0] - timedelta(days=1))
    losses, subject = [], f"{plan.model} on the long histories"
    with progress.stage(f"pre-train {plan.model} on histories", data.num_history) as stage:
        for chunk in data.history:
            rows = np.arange(len(chunk.user_ids))
            lr = trainer.recipe.pretrain_lr
            losses.append(trainer.fit(chunk, rows, lr=lr, rng=rng, stage=stage, subject=subject))
    logger.info("pretrained model=%s rows=%d loss=%.4f", plan.model, data.num_history, float(np.mean(losses)))


def _progressive(
    trainer: UpstreamTrainer, day: DayRows, tasks: Sequence[str], model: str, end: datetime
) -> list[dict[str, Any]]:
    logits = trainer.score(day.stream.examples, day.new)
    AnomalyGuard(f"{model} on {_named(end)}").check_scores(
        logits, lambda odd: partial(day.stream.tensors, day.new[odd])
    )
    judged = day.stream.judged
    labels = (day.stream.examples.labels if judged is None else judged)[day.new]
    figures = []
    for i, task in enumerate(tasks):
        defined = ~np.isnan(labels[:, i])
        if len(np.unique(labels[defined, i])) == 2:
            auc = roc_auc(labels[defined, i], logits[defined, i])
            figures.append({"model": model, "day": _named(end), "task": task, "roc_auc": auc, "n": int(defined.sum())})
    return figures


def _embedding(trainer: UpstreamTrainer, data: WalkData, plan: WalkPlan) -> Callable[[datetime], None]:
    def write(cutoff: datetime) -> None:
        for entity in ENTITIES:
            file = daily_file(plan.out, entity, cutoff)
            write_embeddings(trainer, entity, data.entities(entity, cutoff), file, f"{plan.model} at {cutoff:%Y-%m-%d}")

    return write


def write_embeddings(trainer: UpstreamTrainer, entity: str, chunks: EntityChunks, file: Path, subject: str) -> None:
    """Embed entities and write the vectors as they are, before alignment and averaging.

    Args:
        chunks: Held one at a time, so that memory does not grow with the number of entities.
        subject: Model and day, for the error.

    Raises:
        FloatingPointError: A vector is not finite.
    """

    def tables() -> Iterator[pa.Table]:
        for keys, examples in chunks:
            vectors = trainer.embed(entity, examples)
            _check_vectors(vectors, entity, subject)
            yield pa.table({join_key(entity): keys, "embedding": vector_column(vectors)})

    if leads():
        write_tables(tables(), file)
    else:
        # The others embed their shares of every chunk.
        for _ in tables():
            pass


def _check_vectors(vectors: npt.NDArray[np.float32], entity: str, subject: str) -> None:
    bad = int((~np.isfinite(vectors).all(axis=1)).sum())
    if bad:
        raise FloatingPointError(f"{entity} embeddings of {subject} must be finite (got {bad} that are not)")
