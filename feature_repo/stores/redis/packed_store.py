"""Redis online store (also Valkey; one server, Sentinel or Cluster) that writes tables and keeps rows in order.

Keys and values are those of Feast's own Redis store: a hash per entity, `mmh3(view:feature)` to the serialised value,
`_ts:<view>` to the event timestamp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Literal

import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig

from feature_repo.stores.online.read_clock import Clock
from feature_repo.stores.packed.cells import CellRequest, Cells
from feature_repo.stores.packed.checks import checked_table
from feature_repo.stores.packed.reads import PackedReads
from feature_repo.stores.packed.rows import RowChunk, batch_chunks, check_key_version, table_chunks
from feature_repo.stores.packed.times import encode_times
from feature_repo.stores.prefetch import prefetch
from feature_repo.stores.redis.errors import check_written, named_errors
from feature_repo.stores.redis.pipeline import bulk, command, exchange
from feature_repo.stores.redis.reading import HashRequest, field_names, read_hashes, time_field
from feature_repo.stores.redis.script import DIGEST, ORDER_SAFE_WRITE

CHUNK_ROWS = 2000
"""Rows that are encoded, sent and acknowledged together."""
_LOAD_SCRIPT = command(b"SCRIPT", b"LOAD", ORDER_SAFE_WRITE)


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
        # The next commands are made while the server works on these.
        with prefetch(_with_commands(config, view, chunks), is_ahead=table.num_rows > CHUNK_ROWS) as ready:
            return self._write(config, view, ready, progress)

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Feast's write of protobuf rows, with the same guard."""
        chunks = batch_chunks(table, data, config=config, key_suffix=config.project.encode())
        self._write(config, table, _with_commands(config, table, chunks), progress)

    def _write(
        self,
        config: RepoConfig,
        view: FeatureView,
        chunks: Iterable[tuple[RowChunk, list[bytes]]],
        progress: Callable[[int], Any] | None,
    ) -> int:
        written = 0
        for chunk, commands in chunks:
            with named_errors(config, view, "take every row"):
                replies = exchange(self._get_client(config.online_store), chunk.keys, commands, [_LOAD_SCRIPT])
                check_written(config, view, chunk.keys, replies)
            written += sum(replies)
            if progress:
                progress(len(chunk.keys))
        return written

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


def _with_commands(
    config: RepoConfig, view: FeatureView, chunks: Iterable[RowChunk]
) -> Iterator[tuple[RowChunk, list[bytes]]]:
    name, seconds_to_live = _stored_name(config, view), config.online_store.key_ttl_seconds or 0
    return ((chunk, _write_commands(chunk, name, seconds_to_live)) for chunk in chunks)


def _write_commands(chunk: RowChunk, view: str, key_ttl_seconds: int) -> list[bytes]:
    """A call of the script per row."""
    words = 8 + 2 * len(chunk.names)
    head = b"*%d\r\n" % words + bulk(b"EVALSHA") + bulk(DIGEST) + bulk(b"1")
    times = map(bulk, encode_times(chunk.event_micros))
    micros = (bulk(b"%d" % moment) for moment in chunk.event_micros.tolist())
    expiry = bulk(b"%d" % key_ttl_seconds)
    parts: list[Iterable[bytes]] = [repeat(head), map(bulk, chunk.keys), repeat(time_field(view)), times, micros]
    parts.append(repeat(expiry))
    for field, values in zip(field_names(view, chunk.names), chunk.values, strict=True):
        headers = {length: field + b"$%d\r\n" % length for length in set(map(len, values))}
        parts += [map(headers.__getitem__, map(len, values)), values, repeat(b"\r\n")]
    return [b"".join(row) for row in zip(*parts, strict=False)]
