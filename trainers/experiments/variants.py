"""Other vectors in the place of a version's: each variant is an embedding version of a scratch feature repo.

So rankers get them as they would get any other: point in time through Feast, TTL included.
Dims: N entities, E width of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.contract import ENTITIES, EmbeddingVersion, RepoManifest, embedding_view
from feature_repo.layout import apply, create_repo, open_store
from trainers.upstream.aggregate import Keys, Vectors, moving_average, normalised
from trainers.upstream.frame import Frame
from trainers.upstream.publish import snapshot_name, write_snapshot
from trainers.upstream.vector_files import read_frame

Days = Iterable[tuple[datetime, Frame]]
"""Vectors of each cut-off, in order."""


class Variants:
    """A scratch feature repo with an embedding version for each variant."""

    def __init__(self, folder: Path, model: str, ttl_hours: int, publish_delay: timedelta) -> None:
        self._folder, self._model, self._ttl_hours, self._delay = folder, model, ttl_hours, publish_delay
        self._versions: dict[str, EmbeddingVersion] = {}

    def add(self, name: str, days: Days) -> None:
        """Write a variant's snapshots, each usable from its own cut-off plus the publish delay."""
        number = len(self._versions) + 1
        for cutoff, frame in days:
            dim = frame["user"][1].shape[1]
            self._versions[name] = EmbeddingVersion(
                model=self._model, version=number, dim=dim, ttl_hours=self._ttl_hours
            )
            for entity in ENTITIES:
                view = embedding_view(entity, self._model, number)
                file = self._folder / "data" / "offline" / view / snapshot_name(cutoff)
                write_snapshot(entity, frame[entity], cutoff, self._delay, file)

    def store(self) -> Any:
        """Feast's client, all variants registered."""
        repo = RepoManifest(
            dataset="experiment",
            labels=(),
            conversions=(),
            windows_days=(1,),
            sequence_length=1,
            user_attributes=(),
            pin_attributes=(),
            embeddings=tuple(self._versions.values()),
        )
        create_repo(self._folder, repo)
        apply(self._folder)
        return open_store(self._folder)

    def __getitem__(self, name: str) -> EmbeddingVersion:
        """The version that a variant is registered as."""
        return self._versions[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the variants, in the order in which they were added."""
        return iter(self._versions)


def published(
    offline: Path, version: EmbeddingVersion, cutoffs: Iterable[datetime]
) -> Iterator[tuple[datetime, Frame]]:
    """Snapshots of a version; a cut-off without one is left out."""
    for cutoff in cutoffs:
        folders = {entity: offline / embedding_view(entity, version.model, version.version) for entity in ENTITIES}
        files = {entity: folder / snapshot_name(cutoff) for entity, folder in folders.items()}
        if all(file.is_file() for file in files.values()):
            yield cutoff, read_frame(files.__getitem__, version.dim)


def averaged(days: Days, weight: float) -> Iterator[tuple[datetime, Frame]]:
    """The moving average that a version publishes, with this weight of the past; 0 for the latest vectors alone."""
    state: dict[str, tuple[Keys, Vectors]] = {}
    for cutoff, frame in days:
        for entity in ENTITIES:
            state[entity] = moving_average(state.get(entity, _nothing(frame[entity])), frame[entity], weight)
        yield cutoff, dict(state)


def plain_average(days: Days) -> Iterator[tuple[datetime, Frame]]:
    """The mean over the days since an entity came, back at unit length; one that was away starts anew."""
    sums: dict[str, tuple[Keys, Vectors]] = {}
    for cutoff, frame in days:
        for entity in ENTITIES:
            keys, vectors = frame[entity]
            past_keys, past = sums.get(entity, _nothing(frame[entity]))
            total = vectors.astype(np.float32).copy()
            _, ours, theirs = np.intersect1d(keys, past_keys, assume_unique=True, return_indices=True)
            total[ours] += past[theirs]
            sums[entity] = keys, total
        yield cutoff, {entity: (keys, normalised(total)) for entity, (keys, total) in sums.items()}


def _nothing(like: tuple[Keys, Vectors]) -> tuple[Keys, Vectors]:
    return like[0][:0], like[1][:0]
