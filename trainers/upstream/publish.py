"""Daily embeddings to snapshots of a versioned feature view in the offline store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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
from trainers.upstream.vector_files import vector_column, write_vectors
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
    return plan.offline / view / f"date={cutoff:%Y-%m-%d}.parquet"


def publish(plan: PublishPlan, progress: Progress) -> dict[str, int]:
    """Write a snapshot for every cut-off, in order, replacing what was there.

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
                today = _read_daily(daily_file(plan.daily, entity, cutoff), entity, plan.version.dim)
                state = moving_average(state, today, plan.average_weight)
                _write_snapshot(plan, entity, cutoff, state)
                stage.advance()
            counts[entity] = len(state[0])
    return counts


def _read_daily(file: Path, entity: str, dim: int) -> tuple[Keys, Vectors]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} must hold the day's {entity} embeddings (got no file); run `headwater train`")
    table = pq.read_table(file)
    keys = np.asarray(table[join_key(entity)].to_numpy())
    widths = set(pc.unique(pc.list_value_length(table["embedding"])).to_pylist())
    if not widths <= {dim}:
        raise ValueError(
            f"{file} must hold vectors of width {dim} (got {sorted(widths, key=str)}); train again or raise the version"
        )
    return keys, pc.list_flatten(table["embedding"]).to_numpy().reshape(-1, dim)


def _write_snapshot(plan: PublishPlan, entity: str, cutoff: datetime, state: tuple[Keys, Vectors]) -> None:
    keys, vectors = state
    usable_from = cutoff + plan.publish_delay
    table = pa.table(
        {
            join_key(entity): keys,
            EMBEDDING_FIELD: vector_column(vectors),
            DATA_CUTOFF_FIELD: pa.repeat(pa.scalar(cutoff, _MICROS), len(keys)),
            EVENT_TIMESTAMP: pa.repeat(pa.scalar(usable_from, _MICROS), len(keys)),
            CREATED_TIMESTAMP: pa.repeat(pa.scalar(datetime.now(UTC), _MICROS), len(keys)),
        }
    )
    write_vectors(table, snapshot_file(plan, entity, cutoff))
