"""Milvus online store: a collection per feature view, with a vector width of its own, searchable through Feast.

`path` names a milvus-lite file, which one process at a time can open; `uri` names a server. On milvus-lite an older row
never replaces a newer one, because the owner of the file compares and writes under a lock. On a server that holds for
the writers of one process; two processes that write one entity within the milliseconds between the comparison and the
write of one of them can leave the older row.

Dims: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.infra.online_stores.milvus_online_store.milvus import (
    MilvusOnlineStore,
    MilvusOnlineStoreConfig,
    _collection_consistency_kwargs,
    _consistency_kwargs,
    _index_build_params,
    _search_params,
    _table_id,
)
from pydantic import Field, StrictStr, field_validator
from pymilvus import MilvusClient

from feature_repo.stores.milvus.client import Guard, close_lite, connect_lite, connect_server, guard_of, named_errors
from feature_repo.stores.milvus.rows import (
    MilvusRows,
    batch_rows,
    check_rows,
    stored_values,
    table_rows,
    upsert_requests,
)
from feature_repo.stores.milvus.schema import (
    EVENT_FIELD,
    Column,
    collection_schema,
    differences,
    feature_columns,
    index_parameters,
    key_columns,
    primary_key,
    vector_metrics,
)
from feature_repo.stores.milvus.search import (
    Document,
    Filters,
    SearchRequest,
    documents,
    search_expression,
    vector_field,
    wide_enough,
)
from feature_repo.stores.online.errors import OnlineStoreUnavailableError
from feature_repo.stores.online.read_clock import Clock
from feature_repo.stores.packed.cells import CellRequest, Cells
from feature_repo.stores.packed.reads import PackedReads
from feature_repo.stores.packed.rows import check_key_version
from feature_repo.stores.packed.times import NO_TIME, to_micros

_QUERY_KEYS = 5_000
_UNKNOWN = int(np.iinfo(np.int64).max)
_NO_HIT = -1


class PackedMilvusOnlineStoreConfig(MilvusOnlineStoreConfig):  # type: ignore[misc]
    """Feast's Milvus settings; `index_type`, `index_params` and `search_params` hold for every searched vector."""

    type: StrictStr = "feature_repo.stores.milvus.packed_store.PackedMilvusOnlineStore"
    clock: Clock = "wall"
    """Against what rows age when Feast reads: `wall`, or `materialized` for logs that ended long ago."""
    timeout_s: float = Field(default=30.0, gt=0)
    """How long a server may take to answer."""

    @field_validator("path")
    @classmethod
    def _is_lite_file(cls, path: str | None) -> str | None:
        if path and not path.endswith(".db"):
            raise ValueError(f"path of a milvus-lite file must end with .db (got {path!r}); servers have a `uri`")
        return path


class PackedMilvusOnlineStore(PackedReads, MilvusOnlineStore):  # type: ignore[misc]
    """Feast's Milvus store with typed collections, packed and order-safe writes, and TTL enforced on reads."""

    client: MilvusClient | None
    _collections: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self._lite: Path | None = None
        self._has_snapshots = False

    def write_table(
        self,
        config: RepoConfig,
        view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None = None,
    ) -> int:
        """Write the rows of a view; see `PackedOnlineStore`. Of equal event_timestamps the last write stays."""
        check_key_version(config, view.name)
        if not table.num_rows:
            return 0
        return self._write(config, view, table_rows(view, table, self._columns(config, view)), progress)

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Feast's write of protobuf rows, with the same checks and guard."""
        if data:
            self._write(config, table, batch_rows(table, data, config, self._columns(config, table)), progress)

    def read_cells(self, config: RepoConfig, requests: Sequence[CellRequest]) -> list[Cells]:
        """What the store holds for each request."""
        return [self._read(config, request) for request in requests]

    def retrieve_online_documents_v2(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str] | None,
        embedding: list[float] | None,
        top_k: int,
        distance_metric: str | None = None,
        query_string: str | None = None,
        filters: Filters = None,
        include_feature_view_version_metadata: bool = False,
    ) -> list[Document]:
        """The `top_k` nearest rows, best first, none of them outside max age, with the vectors that are stored.

        Their entity keys begin with `search_rank`. `distance` is Milvus' figure: a similarity for COSINE and IP, a
        distance for L2. A text alone finds rows that contain it, in no order.

        Raises:
            ValueError: The query, metric, filter or number of answers does not fit the view.
            OnlineStoreUnavailableError: Milvus did not answer.
        """
        del include_feature_view_version_metadata
        request = SearchRequest(
            view=table,
            names=requested_features or [field.name for field in table.features],
            top_k=top_k,
            vector=embedding,
            text=query_string,
            metric=distance_metric,
            filters=filters,
        )
        request.check()
        # Feast lets a search name join keys among the features.
        self._require(table, [name for name in request.names if name not in table.join_keys])
        return self._search(config, request)

    def _search(self, config: RepoConfig, request: SearchRequest) -> list[Document]:
        view, settings = request.view, config.online_store
        columns = self._columns(config, view)
        asked = [column for column in columns if column.name in request.names]
        now, stands = self._search_time(config, view)
        options = {
            "limit": request.top_k,
            "output_fields": [primary_key(view), EVENT_FIELD, *(column.name for column in asked)],
            "filter": search_expression(request, columns, now, stands=stands),
            **_consistency_kwargs(settings),
        }
        collection = self._collection(config, view)
        with self._asking(view, collection, "answer a search"):
            if request.vector is None:
                hits = [{"entity": row} for row in self._connect(config).query(collection, **options)]
            else:
                metrics = vector_metrics(view, columns, settings.metric_type)
                field = vector_field(request, columns, metrics)
                ranked = {"metric_type": metrics[field], "params": wide_enough(_search_params(settings), request.top_k)}
                (hits,) = self._connect(config).search(
                    collection, data=[list(request.vector)], anns_field=field, search_params=ranked, **options
                )
        return documents(view, asked, hits)

    async def close(self) -> None:
        """Let go of the connection, and of a milvus-lite file."""
        self.disconnect()

    def disconnect(self) -> None:
        """The same for callers without an event loop."""
        if self.client is not None:
            self.client.close()
            self.client = None
        if self._lite is not None:
            close_lite(self._lite)
            self._lite = None
        self._collections.clear()

    def _connect(self, config: RepoConfig) -> MilvusClient:
        self._has_snapshots = config.registry.enable_online_feature_view_versioning
        if self.client is None:
            settings = config.online_store
            if settings.path and not settings.uri:
                self._lite = (Path(config.repo_path or ".") / settings.path).absolute()
                self.client = connect_lite(self._lite)
            else:
                self.client = connect_server(settings)
        return self.client

    def _guard(self, config: RepoConfig) -> Guard:
        settings = config.online_store
        return guard_of(str(self._lite or settings.uri or f"{settings.host}:{settings.port}"))

    def _columns(self, config: RepoConfig, view: FeatureView) -> list[Column]:
        return [*key_columns(view), *feature_columns(view, config.online_store.embedding_dim or 0)]

    def _collection(self, config: RepoConfig, view: FeatureView) -> str:
        """Name of the view's collection, which is there, loaded, and as the view needs it."""
        name: str = self._get_or_create_collection(config, view)["collection_name"]
        return name

    @contextmanager
    def _asking(self, view: FeatureView, collection: str, should: str) -> Iterator[None]:
        try:
            with named_errors(view.name, should):
                yield
        except OnlineStoreUnavailableError:
            # A server that was started again may have to load it.
            self._collections.pop(collection, None)
            raise

    def _get_or_create_collection(self, config: RepoConfig, table: FeatureView) -> dict[str, Any]:
        name = _table_id(config.project, table, config.registry.enable_online_feature_view_versioning)
        client = self._connect(config)
        with named_errors(table.name, "know the collection"):
            if name in self._collections and client.has_collection(name):
                known: dict[str, Any] = self._collections[name]
                return known
        settings = config.online_store
        columns = self._columns(config, table)
        schema = collection_schema(table, columns, settings.varchar_max_length or 65535)
        with named_errors(table.name, "have a collection"), self._guard(config).lock:
            metrics = vector_metrics(table, columns, settings.metric_type)
            build, is_lite = _index_build_params(settings), self._lite is not None
            indexes = index_parameters(schema, metrics, settings.index_type, build, is_lite=is_lite)
            if not client.has_collection(name):
                client.create_collection(name, schema=schema, **_collection_consistency_kwargs(settings))
            # A process may have been killed between the two.
            if len(client.list_indexes(name)) < len(indexes):
                client.create_index(name, indexes, sync=False)
            self._ensure_loaded(name)
            described = client.describe_collection(name)
        found = differences(described["fields"], schema)
        if found:
            raise ValueError(
                f"collection {name} must have the fields that feature view {table.name} declares ({'; '.join(found)}); "
                "give the view a new name or version, or run `feast teardown`, `feast apply` and materialize again"
            )
        self._collections[name] = described
        self._guard(config).newest.pop(name, None)
        return dict(described)

    def _drop_all_version_collections(self, project: str, table: FeatureView) -> None:
        """Drop the view's collection, and those of its Feast snapshots where the repo makes them.

        Feast looks for snapshots in any repo, and takes the view `pins_v1` for one of the view `pins`.
        """
        name = f"{project}_{table.name}"
        with named_errors(table.name, "drop the collection"):
            if self._has_snapshots:
                super()._drop_all_version_collections(project, table)
            elif self.client is not None and self.client.has_collection(name):
                self.client.drop_collection(name)
                self._collections.pop(name, None)

    def _write(
        self, config: RepoConfig, view: FeatureView, rows: MilvusRows, progress: Callable[[int], Any] | None
    ) -> int:
        columns = self._columns(config, view)
        check_rows(view, columns, rows, config.online_store.varchar_max_length or 65535)
        collection = self._collection(config, view)
        guard = self._guard(config)
        with self._asking(view, collection, "take every row"), guard.lock:
            current = self._not_older(config, view, collection, rows)
            kept = rows if current.all() else rows.take(np.flatnonzero(current))
            for request in upsert_requests(view, collection, columns, kept) if kept.keys else ():
                self._upsert(config, collection, request)
            if collection in guard.newest:
                guard.newest[collection] = max(guard.newest[collection], int(rows.event_micros.max()))
        if progress:
            progress(len(rows.keys))
        return len(kept.keys)

    def _upsert(self, config: RepoConfig, collection: str, request: Any) -> None:
        # Not `MilvusClient.upsert`: it takes a dictionary per row, and makes a message per value of it.
        handler = self._connect(config)._get_connection()
        handler.upsert(collection, [], upsert_param=request, schema={"fields": []})

    def _not_older(self, config: RepoConfig, view: FeatureView, collection: str, rows: MilvusRows) -> Any:
        """Whether each row is at least as new as what is stored under its key."""
        oldest = int(rows.event_micros.min())
        if self._lite is not None and self._newest_stored(config, collection, oldest) <= oldest:
            return np.ones(len(rows.keys), np.bool_)
        stored = np.full(len(rows.keys), NO_TIME)
        place = {key: at for at, key in enumerate(rows.keys)}
        for hit in self._rows_of(config, view, collection, rows.keys, [EVENT_FIELD], "Strong"):
            stored[place[hit[primary_key(view)]]] = hit[EVENT_FIELD]
        return stored <= rows.event_micros

    def _newest_stored(self, config: RepoConfig, collection: str, oldest: int) -> int:
        """No stored row is newer than this. Asked once per collection: nobody else writes a milvus-lite file."""
        newest = self._guard(config).newest
        if collection not in newest:
            counted = self._connect(config).query(
                collection, filter=f"{EVENT_FIELD} > {oldest}", output_fields=["count(*)"]
            )
            newest[collection] = _UNKNOWN if counted[0]["count(*)"] else oldest
        return newest[collection]

    def _rows_of(
        self,
        config: RepoConfig,
        view: FeatureView,
        collection: str,
        keys: Sequence[str],
        fields: Sequence[str],
        consistency: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        options = {"consistency_level": consistency} if consistency else _consistency_kwargs(config.online_store)
        for start in range(0, len(keys), _QUERY_KEYS):
            asked = list(keys[start : start + _QUERY_KEYS])
            names = [primary_key(view), *fields]
            yield from self._connect(config).query(collection, ids=asked, output_fields=names, **options)

    def _read(self, config: RepoConfig, request: CellRequest) -> Cells:
        view, num_keys = request.view, len(request.keys)
        self._require(view, request.names)
        columns = {column.name: column for column in self._columns(config, view)}
        asked = [columns[name] for name in request.names]
        place = {key: at for at, key in enumerate(dict.fromkeys(key.hex() for key in request.keys))}
        collection = self._collection(config, view)
        with self._asking(view, collection, "answer"):
            hits = list(self._rows_of(config, view, collection, list(place), [EVENT_FIELD, *request.names]))
        held = np.full(len(place), _NO_HIT)
        held[[place[hit[primary_key(view)]] for hit in hits]] = np.arange(len(hits))
        # A key may be asked for several times.
        asked_hits = held[[place[key.hex()] for key in request.keys]].tolist() if num_keys else []
        times = np.array([NO_TIME if at == _NO_HIT else hits[at][EVENT_FIELD] for at in asked_hits], np.int64)
        return Cells(values=[_spread(column, hits, asked_hits) for column in asked], event_micros=times)

    def _require(self, view: FeatureView, names: Sequence[str]) -> None:
        known = [field.name for field in view.features]
        absent = [name for name in names if name not in known]
        if absent:
            raise ValueError(f"feature view {view.name} must have the features {absent} (got {known})")

    def _search_time(self, config: RepoConfig, view: FeatureView) -> tuple[int, bool]:
        # A search comes without the registry, but with a view that knows its intervals.
        newest = view.most_recent_end_time if config.online_store.clock == "materialized" else None
        return self.clock.now("wall", view.name) if newest is None else (to_micros(newest), True)


def _spread(column: Column, hits: list[dict[str, Any]], asked: list[int]) -> list[bytes | None]:
    """Values of the hits that were asked for, in that order."""
    values = stored_values(column, [hit[column.name] for hit in hits])
    return [None if at == _NO_HIT else values[at] for at in asked]
