"""Cross representations of an upstream model, aggregated per entity.

A row's cross representation is what the heads of the interaction tower read. An entity's is the mean over the rows that
it had in the days before a cut-off, by the model as of that cut-off, at unit length.
Source: LFM4Ads, arXiv:2508.14948.
Dims: N rows, K entities, H width of a cross representation.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.contract import EMBEDDING_FIELD, join_key
from trainers.upstream.aggregate import Keys, Vectors, normalised
from trainers.upstream.trainer import UpstreamTrainer
from trainers.upstream.vector_files import vector_column, write_vectors
from trainers.upstream.walk import WalkData, daily_file


def keep_cross(trainer: UpstreamTrainer, data: WalkData, days: int, out: Path) -> Callable[[datetime], None]:
    """What a walk calls at each cut-off to leave the cross representations of its entities.

    Args:
        days: Rows that were known this many days before a cut-off are aggregated.
        out: Folder of the files, as those of embeddings.
    """

    def keep(cutoff: datetime) -> None:
        rows = _rows_before(data, cutoff, days)
        found = trainer.cross(data.stream.examples, rows)
        for entity, keys in (("user", data.stream.user_ids), ("pin", data.stream.pin_ids)):
            known, vectors = mean_by_key(keys[rows], found)
            table = pa.table({join_key(entity): known, EMBEDDING_FIELD: vector_column(normalised(vectors))})
            write_vectors(table, daily_file(out, entity, cutoff))

    return keep


def _rows_before(data: WalkData, cutoff: datetime, days: int) -> npt.NDArray[np.int64]:
    first, end = (round(moment.timestamp() * 1_000_000) for moment in (cutoff - timedelta(days=days), cutoff))
    return np.flatnonzero((data.known_at >= first) & (data.known_at < end))


def mean_by_key(keys: Keys, values: Vectors) -> tuple[Keys, Vectors]:
    """Each key once, sorted, and the mean of its rows [K, H]."""
    known, positions, counts = np.unique(keys, return_inverse=True, return_counts=True)
    sums = np.zeros((len(known), values.shape[1]), np.float32)
    np.add.at(sums, positions, values)
    return known, np.asarray(sums / counts[:, None], np.float32)
