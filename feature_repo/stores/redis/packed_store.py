"""Redis online store (also Valkey; one server, Sentinel or Cluster) that writes tables and keeps rows in order.

Keys and values are those of Feast's own Redis store: a hash per entity, `mmh3(view:feature)` to the serialised value,
`_ts:<view>` to the event timestamp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig

from feature_repo.stores.online.read_clock import Clock
from feature_repo.stores.packed.cells import CellRequest, Cells
from feature_repo.stores.packed.checks import checked_table
from feature_repo.stores.packed.reads import PackedReads
from feature_repo.stores.packed.rows import batch_chunks, check_key_version, table_chunks
from feature_repo.stores.prefetch import prefetch
from feature_repo.stores.redis.connections import keep_deadlines
from feature_repo.stores.redis.errors import check_written, named_errors
from feature_repo.stores.redis.pipeline import is_one_server
from feature_repo.stores.redis.reading import HashRequest, read_hashes
from feature_repo.stores.redis.writing import Commands, RowWriter

CHUNK_ROWS = 2000
"""Rows that are encoded, sent and acknowledged together."""


class PackedRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]
    """Feast's Redis settings; `skip_dedup` has no effect, as order costs no second round trip here."""

    type: Literal["feature_repo.stores.redis.packed_store.PackedRedisOnlineStore"] = (
        "feature_repo.stores.redis.packed_store.PackedRedisOnlineStore"
    )
    clock: Clock = "wall"
    """Against what rows age in `get_online_features`: `wall`, or `materialized` for logs that ended long ago."""


class PackedRedisOnlineStore(PackedReads, RedisOnlineStore):  # type: ignore[misc]
    """Feast's Redis store, with packed tables, order-safe writes, and TTL enforced on reads."""

    def write_table(
        self,
        config: RepoConfig,
        view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None = None,
    ) -> int:
        """Write the rows of a view; see `PackedOnlineStore.write_table`.

        Of equal event_timestamps the last write stays.
        """
        check_key_version(config, view.name)
        chunks = table_chunks(checked_table(view, table), num_rows=CHUNK_ROWS, key_suffix=config.project.encode())
        writer = self._writer(config, view, creates=True)
        # The next commands are made while the server works on these.
        with prefetch(writer.ready(chunks), is_ahead=table.num_rows > CHUNK_ROWS) as ready:
            return _write(config, view, writer, ready, progress)

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Feast's write of protobuf rows, with the same guard."""
        chunks = batch_chunks(table, data, config=config, key_suffix=config.project.encode())
        writer = self._writer(config, table, creates=False)
        _write(config, table, writer, writer.ready(chunks), progress)

    def _get_client(self, online_store_config: Any) -> Any:
        made = self._client is None
        client = super()._get_client(online_store_config)
        if made and is_one_server(client):
            keep_deadlines(client)
        return client

    def keeps_deadlines(self, config: RepoConfig) -> bool:
        """Whether reads end by `stores.online.deadline`: not those of a cluster or behind a Sentinel."""
        return is_one_server(self._get_client(config.online_store))

    def _writer(self, config: RepoConfig, view: FeatureView, *, creates: bool) -> RowWriter:
        settings = config.online_store
        with named_errors(config, view, "take every row"):
            client = self._get_client(settings)
        return RowWriter(
            client, _stored_name(config, view), key_ttl_seconds=settings.key_ttl_seconds or 0, creates=creates
        )

    def read_cells(self, config: RepoConfig, requests: Sequence[CellRequest]) -> list[Cells]:
        """What the store holds for each request, all in one pipeline."""
        if not requests:
            return []
        with named_errors(config, requests[0].view, "answer"):
            return read_hashes(
                self._get_client(config.online_store), [_hash_request(config, each) for each in requests]
            )


def _hash_request(config: RepoConfig, request: CellRequest) -> HashRequest:
    return HashRequest(
        stored_name=_stored_name(config, request.view),
        names=request.names,
        keys=request.keys,
        suffix=config.project.encode(),
        view=request.view,
    )


def _stored_name(config: RepoConfig, view: FeatureView) -> str:
    return str(compute_versioned_name(view, config.registry.enable_online_feature_view_versioning))


def _write(
    config: RepoConfig,
    view: FeatureView,
    writer: RowWriter,
    ready: Iterable[Commands],
    progress: Callable[[int], Any] | None,
) -> int:
    written = 0
    for commands in ready:
        keys = commands.chunk.keys
        with named_errors(config, view, "take every row"):
            replies = writer.write(commands)
            check_written(config, view, keys, replies)
        written += sum(replies)
        if progress:
            progress(len(keys))
    return written
