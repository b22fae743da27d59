"""Features that a release reads from Feast's online store, user and Pin each for its own keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from feature_repo.contract import ENTITIES, join_key
from feature_repo.layout import open_store
from feature_repo.release.agreement import references_by_service
from feature_repo.release.manifest import ReleaseError, Services
from serving.monitoring.request import stage

# Importing Feast costs seconds, so it is left until a release is loaded.
if TYPE_CHECKING:
    from feast import FeatureStore

    from feature_repo.stores.online.status import OnlineRead, OnlineReader


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityFeatures:
    """Online reads for one entity; safe to use from many threads."""

    entity: str
    references: tuple[str, ...]
    """Feast references `view:feature` of everything that is read."""
    readers: tuple[OnlineReader, ...]
    """One reader, or two where the services hold different features of the entity."""

    @property
    def columns(self) -> set[str]:
        """Columns of a read: the join key and `view__feature` of every feature."""
        return {join_key(self.entity), *(reference.replace(":", "__", 1) for reference in self.references)}

    def read(self, ids: Sequence[int], now: datetime) -> OnlineRead:
        """Features, statuses and event timestamps of the keys, with the join key as a column."""
        from feature_repo.stores.online.status import OnlineRead

        with stage("store"):
            reads = [reader.read(ids, now) for reader in self.readers]
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
    return {entity: _entity_features(store, entity, used[entity], found) for entity in ENTITIES}


def _entity_features(
    store: FeatureStore, entity: str, services: Sequence[str], found: dict[str, dict[str, list[str]]]
) -> EntityFeatures:
    from feature_repo.stores.online.status import OnlineReader

    references: dict[str, None] = {}
    readers: list[OnlineReader] = []
    for service in services:
        if not found[service][entity]:
            raise ReleaseError(f"service {service!r} must hold a view of entity {entity} (got none)")
        if set(found[service][entity]) - set(references):
            readers.append(OnlineReader(store, service, entity))
        references |= dict.fromkeys(found[service][entity])
    return EntityFeatures(entity=entity, references=tuple(references), readers=tuple(readers))


def by_view(references: Sequence[str]) -> dict[str, list[str]]:
    """Feature names of `view:feature` references, grouped by view in order."""
    grouped: dict[str, list[str]] = {}
    for reference in references:
        view, _, name = reference.partition(":")
        grouped.setdefault(view, []).append(name)
    return grouped
