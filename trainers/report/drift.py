"""How far embeddings move from one daily snapshot to the next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from feature_repo.contract import ENTITIES, RepoManifest, embedding_view, join_key
from trainers.report.schema import DriftDay

_MOST_COMPARED = 20_000
"""Entities of a snapshot that are compared, the first by key."""

Snapshot = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Sorted keys [N] and vectors [N, E] of unit length, zero where a vector is."""


def drift_days(offline: Path, manifest: RepoManifest) -> Iterator[DriftDay]:
    """Movement of every embedding view of a repo, day after day."""
    for version in manifest.embeddings:
        for entity in ENTITIES:
            view = embedding_view(entity, version.model, version.version)
            files = sorted((offline / view).glob("date=*.parquet"))
            snapshots = ((file, _read(file, join_key(entity))) for file in files)
            for (_, before), (file, after) in pairwise(snapshots):
                found = _moved(view, date.fromisoformat(file.stem.removeprefix("date=")), before, after)
                if found is not None:
                    yield found


def _read(file: Path, key: str) -> Snapshot:
    table = pq.ParquetFile(file).read(columns=[key, "embedding"])
    keys = table[key].to_numpy()
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(keys), -1)
    order = np.argsort(keys)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return keys[order], (vectors / np.where(norms > 0, norms, 1.0))[order]


def _moved(view: str, day: date, before: Snapshot, after: Snapshot) -> DriftDay | None:
    """One day's movement; none where the snapshots share no entity or differ in width."""
    if before[1].shape[1:] != after[1].shape[1:]:
        return None
    shared, old, new = np.intersect1d(before[0], after[0], assume_unique=True, return_indices=True)
    if not len(shared):
        return None
    old, new = old[:_MOST_COMPARED], new[:_MOST_COMPARED]
    cosines = np.einsum("nd,nd->n", before[1][old], after[1][new]).clip(-1.0, 1.0)
    return DriftDay(
        view=view,
        day=day,
        cosine=round(float(cosines.mean()), 5),
        low_cosine=round(float(np.quantile(cosines, 0.1)), 5),
        num_vectors=len(after[0]),
        num_new=len(after[0]) - len(shared),
    )
