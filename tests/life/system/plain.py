"""A run as it lies on the disk, read with sqlite3, pyarrow, json and protobuf alone.

Dims: N rows, d width of a vector.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.types.Value_pb2 import Value

from feature_repo.versions import (
    Consumer,
    Pointers,
    ReleaseRecord,
    ReleaseState,
    Transition,
    VersionRecord,
    VersionState,
)
from tests.feature_repo.catalogue.seen import Seen

ENTITIES = ("user", "pin")
IN_USE = ("candidate", "live", "superseded")

Vectors = Mapping[int, npt.NDArray[np.float32]]
"""Vector [d] by key."""


@dataclass(frozen=True)
class OnlineRow:
    """One entity's vector in the online store."""

    vector: npt.NDArray[np.float32]
    usable_from: datetime


class PlainRun:
    """What a run holds now; everything is read once, when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "feature_repo" / "data"

    @cached_property
    def seen(self) -> Seen:
        """The catalogue, read in one transaction."""
        with closing(sqlite3.connect(self.data / "registry.db")) as database:
            database.row_factory = sqlite3.Row
            database.execute("BEGIN")
            return _catalogue(database)

    @cached_property
    def days(self) -> list[dict[str, Any]]:
        """Rows of the catalogue's days."""
        with closing(sqlite3.connect(self.data / "registry.db")) as database:
            database.row_factory = sqlite3.Row
            return [_fields(row) for row in database.execute("SELECT * FROM headwater_days ORDER BY key, cutoff")]

    @cached_property
    def registry(self) -> Registry:
        """Feast's registry."""
        with closing(sqlite3.connect(self.data / "registry.db")) as database:
            (stored,) = database.execute("SELECT proto FROM feast_registry").fetchone()
        return Registry.FromString(stored)

    @property
    def views(self) -> set[str]:
        """Registered feature views."""
        return {view.spec.name for view in self.registry.feature_views}

    @property
    def services(self) -> dict[str, list[str]]:
        """Embedding views that each feature service reads."""
        return {
            service.spec.name: [
                each.feature_view_name for each in service.spec.features if "_embedding_" in each.feature_view_name
            ]
            for service in self.registry.feature_services
        }

    def offline(self, entity: str, key: str) -> list[Path]:
        """Snapshots that joins read."""
        return sorted((self.data / "offline" / f"{entity}_embedding_{key}").glob("date=*.parquet"))

    def offline_files(self, entity: str, key: str) -> list[Path]:
        """Every file that joins read: snapshots, pushed rows, and files that pushed rows were merged into."""
        folder = self.data / "offline" / f"{entity}_embedding_{key}"
        told = folder / ".superseded.json"
        merged = json.loads(told.read_text())["files"] if told.is_file() else []
        return sorted(file for file in folder.glob("[!.]*.parquet") if file.name not in merged)

    def offline_rows(self, entity: str, key: str) -> Mapping[tuple[int, datetime], list[npt.NDArray[np.float32]]]:
        """Vectors by key and moment from which they may be used."""
        found: dict[tuple[int, datetime], list[npt.NDArray[np.float32]]] = {}
        for file in self.offline_files(entity, key):
            table = pq.ParquetFile(file).read(columns=[f"{entity}_id", "event_timestamp", "embedding"])
            for name, moment, vector in zip(*(column.to_pylist() for column in table.columns), strict=True):
                found.setdefault((int(name), moment.astimezone(UTC)), []).append(np.asarray(vector, np.float32))
        return found

    def reference(self, entity: str, key: str) -> Vectors:
        """Reference frame of a version; empty where there is none."""
        file = self.folder / "upstream" / key / "reference" / f"{entity}.parquet"
        return vectors_of(file, entity) if file.is_file() else {}

    def space_id(self, key: str) -> str:
        """Name of the space that the reference frame of a version says."""
        files = [self.folder / "upstream" / key / "reference" / f"{entity}.parquet" for entity in ENTITIES]
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]

    @cached_property
    def online_tables(self) -> set[str]:
        """Embedding views that have a table in the online store."""
        with closing(sqlite3.connect(self.data / "online_store.db")) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name[name.index(f"{entity}_embedding_") :]
            for name in names
            for entity in ENTITIES
            if f"_{entity}_embedding_" in name
        }

    def online(self, entity: str, key: str) -> dict[int, OnlineRow]:
        """Rows of a version's view in the online store."""
        with closing(sqlite3.connect(self.data / "online_store.db")) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            tables = [name for name in names if name.endswith(f"_{entity}_embedding_{key}")]
            rows = [
                row
                for table in tables
                for row in database.execute(
                    f"SELECT entity_key, value, event_ts FROM \"{table}\" WHERE feature_name = 'embedding'"
                )
            ]
        return {
            int.from_bytes(entity_key[-8:], "little", signed=True): OnlineRow(
                np.asarray(Value.FromString(value).float_list_val.val, np.float32), _moment(usable_from)
            )
            for entity_key, value, usable_from in rows
        }

    def manifest(self, release: ReleaseRecord) -> dict[str, Any]:
        """Manifest of a release."""
        found: dict[str, Any] = json.loads((self.folder / release.folder / "manifest.json").read_text())
        return found

    def index(self, release: ReleaseRecord) -> Vectors:
        """Candidate vectors by Pin, without the popularity at their end."""
        index = faiss.read_index(str(self.folder / release.folder / "pins.faiss"))
        keys = faiss.vector_to_array(index.id_map)
        return {int(key): index.reconstruct(int(key))[:-1] for key in keys}

    def files(self) -> set[str]:
        """Files of the run but those of databases, locks and what a kill left half written."""
        found = (file for file in self.folder.rglob("*") if file.is_file())
        names = (str(file.relative_to(self.folder)) for file in found)
        return {name for name in names if not name.endswith(TRANSIENT) and ".partial" not in name}


TRANSIENT = (".db", ".db-journal", ".db-wal", ".db-shm", ".lock")


def vectors_of(file: Path, entity: str) -> Vectors:
    """Vectors of a parquet file."""
    table = pq.ParquetFile(file).read(columns=[f"{entity}_id", "embedding"])
    return {
        int(key): np.asarray(vector, np.float32)
        for key, vector in zip(table[f"{entity}_id"].to_pylist(), table["embedding"].to_pylist(), strict=True)
    }


def sha256(file: Path) -> str:
    """Digest of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _catalogue(database: sqlite3.Connection) -> Seen:
    def rows(query: str) -> list[dict[str, Any]]:
        return [_fields(row) for row in database.execute(query)]

    versions = {each["key"]: _version(each) for each in rows("SELECT * FROM headwater_versions")}
    named: dict[str, dict[str, str]] = {}
    for each in rows("SELECT * FROM headwater_release_versions"):
        named.setdefault(each["release"], {})[each["key"]] = each["space_id"]
    releases = {each["id"]: _release(each, named[each["id"]]) for each in rows("SELECT * FROM headwater_releases")}
    (pointers,) = rows("SELECT live, shadow, shadow_share, revision FROM headwater_pointers")
    services = rows("SELECT * FROM headwater_service_reads")
    return Seen(
        versions=versions,
        days={(each["key"], each["cutoff"]): each["state"] for each in rows("SELECT * FROM headwater_days")},
        releases=releases,
        pointers=Pointers(**pointers),
        consumers=_consumers(versions, releases, services),
        transitions=[Transition(**each) for each in rows("SELECT * FROM headwater_transitions ORDER BY id")],
    )


def _consumers(
    versions: Mapping[str, VersionRecord], releases: Mapping[str, ReleaseRecord], services: list[dict[str, Any]]
) -> dict[str, list[Consumer]]:
    found: dict[str, list[Consumer]] = {}
    for release in releases.values():
        for key in release.versions if release.state in IN_USE else ():
            found.setdefault(key, []).append(Consumer(kind="release", name=release.id, detail=release.state))
    for each in services:
        found.setdefault(each["key"], []).append(Consumer(kind="service", name=each["service"], detail=""))
    for version in versions.values():
        if version.served_through is not None and version.state not in ("retired", "pruned"):
            consumer = Consumer(kind="version", name=version.key, detail=version.state)
            found.setdefault(version.served_through, []).append(consumer)
    return found


def _version(fields: dict[str, Any]) -> VersionRecord:
    return VersionRecord(**{**fields, "state": VersionState(fields["state"]), "parents": tuple(fields["parents"])})


def _release(fields: dict[str, Any], versions: Mapping[str, str]) -> ReleaseRecord:
    return ReleaseRecord(**{**fields, "state": ReleaseState(fields["state"]), "versions": versions})


_JSON = ("recipe", "parents", "artifacts", "gates", "failed", "snapshot_sha256", "entities", "services", "details")
_TIMES = ("data_from", "data_until", "created", "cutoff", "finished", "data_cutoff", "at")


def _fields(row: sqlite3.Row) -> dict[str, Any]:
    return dict(_values(row))


def _values(row: sqlite3.Row) -> Iterator[tuple[str, Any]]:
    for name in row.keys():  # noqa: SIM118
        value = row[name]
        if name in _JSON and isinstance(value, str):
            value = json.loads(value)
        elif name in _TIMES and value is not None:
            value = _moment(value)
        yield name, value


def _moment(text: str | int) -> datetime:
    if isinstance(text, int):
        return datetime.fromtimestamp(text, UTC)
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
