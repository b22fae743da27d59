"""Daily embeddings to snapshots of a versioned feature view in the offline store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_repo.contract import (
    CREATED_TIMESTAMP,
    DATA_CUTOFF_FIELD,
    EMBEDDING_FIELD,
    ENTITIES,
    EVENT_TIMESTAMP,
    EmbeddingVersion,
    embedding_view,
    join_key,
)
from trainers.progress import Progress
from trainers.upstream.aggregate import Keys, Vectors, moving_average
from trainers.upstream.vector_files import read_vectors, vector_column, write_vectors
from trainers.upstream.walk import daily_file

_MICROS = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishPlan:
    """Which daily embeddings become which snapshots."""

    version: EmbeddingVersion
    """Embedding version that the vectors belong to."""
    daily: Path
    """Folder that the walk wrote its daily embeddings under."""
    offline: Path
    """`data/offline` of the feature repo."""
    cutoffs: Sequence[datetime]
    """Cut-offs to publish, increasing."""
    publish_delay: timedelta
    """Time from a cut-off to the moment its vectors may be used."""
    average_weight: float
    """Weight w of the past in the moving average."""


def snapshot_file(plan: PublishPlan, entity: str, cutoff: datetime) -> Path:
    """Offline file of one snapshot."""
    view = embedding_view(entity, plan.version.model, plan.version.version)
    return plan.offline / view / snapshot_name(cutoff)


def snapshot_name(cutoff: datetime) -> str:
    """File name of the snapshot of a cut-off."""
    return f"date={cutoff.astimezone(UTC):%Y-%m-%d}.parquet"


def publish(plan: PublishPlan, progress: Progress) -> dict[str, int]:
    """Write a snapshot for every cut-off, in order; one that holds the same vectors already stays as it is.

    Returns:
        Entities in the newest snapshot, by entity.

    Raises:
        ValueError: A daily file holds vectors of another width than the version's.
        FileNotFoundError: A cut-off has no daily embeddings.
    """
    counts: dict[str, int] = {}
    with progress.stage(f"publish {plan.version.key}", len(plan.cutoffs) * len(ENTITIES)) as stage:
        for entity in ENTITIES:
            state: tuple[Keys, Vectors] = (np.empty(0, np.int64), np.empty((0, plan.version.dim), np.float32))
            for cutoff in plan.cutoffs:
                today = read_vectors(daily_file(plan.daily, entity, cutoff), entity, plan.version.dim)
                state = moving_average(state, today, plan.average_weight)
                write_snapshot(entity, state, cutoff, plan.publish_delay, snapshot_file(plan, entity, cutoff))
                stage.advance()
            counts[entity] = len(state[0])
    return counts


def write_snapshot(
    entity: str, state: tuple[Keys, Vectors], cutoff: datetime, publish_delay: timedelta, file: Path
) -> None:
    """Write the averaged vectors of a cut-off as Feast reads them, unless the file holds exactly them.

    So a step that is repeated leaves a visible snapshot as it was read, to the byte.
    """
    keys, vectors = state
    if file.is_file() and _holds(file, entity, keys, vectors):
        return
    table = pa.table(
        {
            join_key(entity): keys,
            EMBEDDING_FIELD: vector_column(vectors),
            DATA_CUTOFF_FIELD: pa.repeat(pa.scalar(cutoff, _MICROS), len(keys)),
            EVENT_TIMESTAMP: pa.repeat(pa.scalar(cutoff + publish_delay, _MICROS), len(keys)),
            CREATED_TIMESTAMP: pa.repeat(pa.scalar(datetime.now(UTC), _MICROS), len(keys)),
        }
    )
    write_vectors(table, file)


def _holds(file: Path, entity: str, keys: Keys, vectors: Vectors) -> bool:
    try:
        held_keys, held = read_vectors(file, entity, vectors.shape[1])
    except (ValueError, pa.ArrowInvalid, KeyError):
        return False
    return np.array_equal(held_keys, keys) and np.array_equal(held, vectors)
