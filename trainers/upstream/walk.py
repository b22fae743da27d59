"""The walk forward in time: for every day, train on what is known by its cut-off, then embed the active entities.

A model never sees a row before it has been scored on it, so the scores of each day are an honest learning curve, and
an embedding stamped with a cut-off comes from rows and labels that were known by then.
Dims: N rows, T tasks, E width of an embedding.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.contract import ENTITIES, join_key
from trainers.data.examples import Examples, Rows
from trainers.metrics import roc_auc
from trainers.progress import Progress
from trainers.upstream.trainer import UpstreamExamples, UpstreamTrainer
from trainers.upstream.vector_files import vector_column, write_vectors

logger = logging.getLogger(__name__)

Moments = npt.NDArray[np.int64]
EntityInputs = Callable[[str, datetime], tuple[npt.NDArray[np.int64], Examples]]
"""Keys and encoded inputs of the entities of one kind that are active at a cut-off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkData:
    """What one upstream model walks over."""

    stream: UpstreamExamples
    """Every row of the domain."""
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
    """Upstream model: `ctr` or `cvr`."""
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


def walk(trainer: UpstreamTrainer, data: WalkData, plan: WalkPlan, progress: Progress) -> list[dict[str, Any]]:
    """Train through every cut-off, resuming after the last one that was checkpointed.

    Returns:
        The progressive evaluation: `{model, day, task, roc_auc, n}` of each day, scored before training on it.
    """
    file = plan.out / "checkpoint.safetensors"
    notes = trainer.load(file) if file.exists() else {"cutoff": None, "progressive": []}
    if notes["cutoff"] is None:
        _pretrain(trainer, data, plan, progress)
    curve: list[dict[str, Any]] = notes["progressive"]
    saved = time.monotonic()
    done = datetime.fromisoformat(notes["cutoff"]) if notes["cutoff"] else None
    spans = [(start, end) for start, end in _spans(plan.cutoffs) if done is None or end > done]
    with progress.stage(f"train {plan.model}", sum(_work(trainer, data, *span) for span in spans)) as stage:
        for start, end in spans:
            rows = _known_between(data.known_at, start, end)
            curve += _progressive(trainer, data, rows, plan.model, end)
            rng = _generator(plan, end)
            trainer.fit(
                data.stream,
                _with_replay(trainer, data, rows, end, rng),
                lr=trainer.recipe.daily_lr,
                rng=rng,
                stage=stage,
            )
            if end >= plan.embed_from:
                _write_embeddings(trainer, data, plan, end)
            if end == plan.cutoffs[-1] or time.monotonic() - saved >= trainer.recipe.checkpoint_seconds:
                trainer.save(file, {"cutoff": end.isoformat(), "progressive": curve})
                saved = time.monotonic()
    return curve


def _spans(cutoffs: Sequence[datetime]) -> list[tuple[datetime, datetime]]:
    """Every cut-off with the moment from which rows are new to it; all earlier rows are new to the first."""
    return list(zip((datetime.min.replace(tzinfo=cutoffs[0].tzinfo), *cutoffs), cutoffs, strict=False))


def _micros(moment: datetime) -> int:
    if moment.year == datetime.min.year:
        return np.iinfo(np.int64).min
    return round(moment.timestamp() * 1_000_000)


def _known_between(known_at: Moments, start: datetime, end: datetime) -> Rows:
    return np.flatnonzero((known_at >= _micros(start)) & (known_at < _micros(end)))


def _work(trainer: UpstreamTrainer, data: WalkData, start: datetime, end: datetime) -> int:
    return int(len(_known_between(data.known_at, start, end)) * (1.0 + trainer.recipe.replay))


def _generator(plan: WalkPlan, moment: datetime) -> np.random.Generator:
    return np.random.default_rng([plan.seed, zlib.crc32(plan.model.encode()), _micros(moment) // 1_000_000])


def _with_replay(trainer: UpstreamTrainer, data: WalkData, rows: Rows, end: datetime, rng: np.random.Generator) -> Rows:
    """The day's rows and a sample of those known before it."""
    earlier = np.setdiff1d(np.flatnonzero(data.known_at < _micros(end)), rows, assume_unique=True)
    num_replayed = min(len(earlier), int(len(rows) * trainer.recipe.replay))
    return np.concatenate([rows, rng.choice(earlier, num_replayed, replace=False)])


def _pretrain(trainer: UpstreamTrainer, data: WalkData, plan: WalkPlan, progress: Progress) -> None:
    if not data.num_history:
        return
    rng = _generator(plan, plan.cutoffs[0] - timedelta(days=1))
    losses = []
    with progress.stage(f"pre-train {plan.model} on histories", data.num_history) as stage:
        for chunk in data.history:
            rows = np.arange(len(chunk.user_ids))
            losses.append(trainer.fit(chunk, rows, lr=trainer.recipe.pretrain_lr, rng=rng, stage=stage))
    logger.info("pretrained model=%s rows=%d loss=%.4f", plan.model, data.num_history, float(np.mean(losses)))


def _progressive(
    trainer: UpstreamTrainer, data: WalkData, rows: Rows, model: str, end: datetime
) -> list[dict[str, Any]]:
    logits = trainer.score(data.stream.examples, rows)
    labels = data.stream.examples.labels[rows]
    figures = []
    for i, task in enumerate(data.tasks):
        defined = ~np.isnan(labels[:, i])
        if len(np.unique(labels[defined, i])) == 2:
            auc = roc_auc(labels[defined, i], logits[defined, i])
            day = (end - timedelta(days=1)).date().isoformat()
            figures.append({"model": model, "day": day, "task": task, "roc_auc": auc, "n": int(defined.sum())})
    return figures


def _write_embeddings(trainer: UpstreamTrainer, data: WalkData, plan: WalkPlan, cutoff: datetime) -> None:
    for entity in ENTITIES:
        ids, examples = data.entities(entity, cutoff)
        vectors = trainer.embed(entity, examples)
        _check_vectors(vectors, plan.model, entity, cutoff)
        table = pa.table({join_key(entity): ids, "embedding": vector_column(vectors)})
        write_vectors(table, daily_file(plan.out, entity, cutoff))


def _check_vectors(vectors: npt.NDArray[np.float32], model: str, entity: str, cutoff: datetime) -> None:
    bad = int((~np.isfinite(vectors).all(axis=1)).sum())
    if bad:
        raise FloatingPointError(
            f"{entity} embeddings of {model} at {cutoff:%Y-%m-%d} must be finite (got {bad} that are not)"
        )
