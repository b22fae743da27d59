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
    readers: tuple[OnlineReader, ...]
    """One reader, or two where the services hold different features of the entity."""
    guard: StoreGuard
    """What ends reads in time."""

    @property
    def columns(self) -> set[str]:
        """Columns of a read: the join key and `view__feature` of every feature."""
        return {join_key(self.entity), *(reference.replace(":", "__", 1) for reference in self.references)}

    @property
    def categories(self) -> list[str]:
        """References of features that hold one text or one integer."""
        types = {name: kind for reader in self.readers for name, kind in reader.types.items()}
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
            reads = [self.guard(partial(reader.read, ids, now, only)) for reader in self.readers]
        columns = {join_key(self.entity): pa.array(ids, pa.int64())}
        for read in reads:
            columns |= dict(zip(read.features.column_names, read.features.columns, strict=True))
        return OnlineRead(
            features=pa.table(columns),
            event_timestamps={view: at for read in reads for view, at in read.event_timestamps.items()},
            statuses={view: codes for read in reads for view, codes in read.statuses.items()},
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
    opened = {entity: _readers(store, entity, used[entity], found) for entity in ENTITIES}
    keeps = all(reader.keeps_deadlines for _, readers in opened.values() for reader in readers)
    guard = StoreGuard(keeps_deadlines=keeps)
    return {
        entity: EntityFeatures(entity=entity, references=references, readers=readers, guard=guard)
        for entity, (references, readers) in opened.items()
    }


def _readers(
    store: FeatureStore, entity: str, services: Sequence[str], found: dict[str, dict[str, list[str]]]
) -> tuple[tuple[str, ...], tuple[OnlineReader, ...]]:
    """References of an entity in some services, and what reads them."""
    from feature_repo.stores.online.status import OnlineReader

    references: dict[str, None] = {}
    readers: list[OnlineReader] = []
    for service in services:
        if not found[service][entity]:
            raise ReleaseError(f"service {service!r} must hold a view of entity {entity} (got none)")
        if set(found[service][entity]) - set(references):
            readers.append(OnlineReader(store, service, entity))
        references |= dict.fromkeys(found[service][entity])
    return tuple(references), tuple(readers)


def by_view(references: Sequence[str]) -> dict[str, list[str]]:
    """Feature names of `view:feature` references, grouped by view in order."""
    grouped: dict[str, list[str]] = {}
    for reference in references:
        view, _, name = reference.partition(":")
        grouped.setdefault(view, []).append(name)
    return grouped
