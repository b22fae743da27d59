"""Features that a release reads from Feast's online store, user and Pin each for its own keys."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.contract import ENTITIES, join_key
from feature_repo.layout import open_store
from feature_repo.release.agreement import references_by_service
from feature_repo.release.manifest import ReleaseError, Services
from serving.monitoring.request import stage
from serving.store_guard import StoreGuard

# Importing Feast costs seconds, so it is left until a release is loaded.
if TYPE_CHECKING:
    from feast import FeatureStore

    from feature_repo.stores.online.status import OnlineRead, OnlineReader

Keys = Sequence[int] | npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityFeatures:
    """Online reads for one entity; safe to use from many threads."""

    entity: str
    references: tuple[str, ...]
    """Feast references `view:feature` of everything that is read."""
    reader: OnlineReader
    """Reads what all services hold of the entity, in one round trip."""
    guard: StoreGuard
    """What ends reads in time."""

    @property
    def columns(self) -> set[str]:
        """Columns of a read: the join key and `view__feature` of every feature."""
        return {join_key(self.entity), *(reference.replace(":", "__", 1) for reference in self.references)}

    @property
    def categories(self) -> list[str]:
        """References of features that hold one text or one integer."""
        types = self.reader.types
        return [name for name in self.references if pa.types.is_string(types[name]) or pa.types.is_integer(types[name])]

    def read(self, ids: Keys, now: datetime, only: Collection[str] | None = None) -> OnlineRead:
        """Features, statuses and event timestamps of the keys, with the join key as a column.

        Args:
            only: References to read; all of them when not given.

        Raises:
            StoreDownError: The store did not answer, or not in time.
        """
        from feature_repo.stores.online.status import OnlineRead

        with stage("store"):
            read = self.guard(partial(self.reader.read, ids, now, only))
        columns = dict(zip(read.features.column_names, read.features.columns, strict=True))
        return OnlineRead(
            features=pa.table({join_key(self.entity): pa.array(ids, pa.int64()), **columns}),
            event_timestamps=read.event_timestamps,
            statuses=read.statuses,
        )


def open_features(repo_dir: Path, services: Services) -> dict[str, EntityFeatures]:
    """Reads per entity: user features of both services, Pin features of the ranking service.

    Raises:
        ReleaseError: There is no Feast repo, it lacks a service, or a service has no view of an entity.
    """
    try:
        store = open_store(repo_dir)
    except FileNotFoundError as error:
        raise ReleaseError(str(error)) from error
    used = {"user": (services.ranking, services.retrieval), "pin": (services.ranking,)}
    found = references_by_service(store, services)
    opened = {entity: _reader(store, entity, used[entity], found) for entity in ENTITIES}
    keeps = all(reader.keeps_deadlines for _, reader in opened.values())
    guard = StoreGuard(keeps_deadlines=keeps)
    return {
        entity: EntityFeatures(entity=entity, references=references, reader=reader, guard=guard)
        for entity, (references, reader) in opened.items()
    }


def _reader(
    store: FeatureStore, entity: str, services: Sequence[str], found: dict[str, dict[str, list[str]]]
) -> tuple[tuple[str, ...], OnlineReader]:
    """References of an entity in some services, and what reads them."""
    from feature_repo.stores.online.status import OnlineReader

    for service in services:
        if not found[service][entity]:
            raise ReleaseError(f"service {service!r} must hold a view of entity {entity} (got none)")
    references = dict.fromkeys(reference for service in services for reference in found[service][entity])
    return tuple(references), OnlineReader(store, services, entity)


def by_view(references: Sequence[str]) -> dict[str, list[str]]:
    """Feature names of `view:feature` references, grouped by view in order."""
    grouped: dict[str, list[str]] = {}
    for reference in references:
        view, _, name = reference.partition(":")
        grouped.setdefault(view, []).append(name)
    return grouped
