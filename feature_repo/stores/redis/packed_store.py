"""Redis online store (also Valkey; one server, Sentinel or Cluster) that writes tables and keeps rows in order.

Keys and values are those of Feast's own Redis store: a hash per entity, `mmh3(view:feature)` to the serialised value,
`_ts:<view>` to the event timestamp.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import repeat
from typing import Any, Literal

import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import _mmh3, compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from redis.exceptions import RedisError

from feature_repo.stores.online.errors import OnlineStoreUnavailableError
from feature_repo.stores.online.read_clock import Clock
from feature_repo.stores.packed.cells import CellRequest, Cells
from feature_repo.stores.packed.checks import checked_table
from feature_repo.stores.packed.entity_keys import key_text
from feature_repo.stores.packed.reads import PackedReads
from feature_repo.stores.packed.rows import RowChunk, batch_chunks, check_key_version, table_chunks
from feature_repo.stores.packed.times import decode_times, encode_times
from feature_repo.stores.redis.pipeline import bulk, command, exchange
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
        return self._write(config, view, chunks, progress)

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Feast's write of protobuf rows, with the same guard."""
        chunks = batch_chunks(table, data, config=config, key_suffix=config.project.encode())
        self._write(config, table, chunks, progress)

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """`online_write_batch` in a thread."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def _write(
        self, config: RepoConfig, view: FeatureView, chunks: Iterable[RowChunk], progress: Callable[[int], Any] | None
    ) -> int:
        name = compute_versioned_name(view, config.registry.enable_online_feature_view_versioning)
        written = 0
        for chunk in chunks:
            commands = _write_commands(chunk, name, config.online_store.key_ttl_seconds or 0)
            with _named_errors(view, "take every row"):
                replies = exchange(self._get_client(config.online_store), chunk.keys, commands, [_LOAD_SCRIPT])
                _check_written(view, chunk, replies)
            written += sum(replies)
            if progress:
                progress(len(chunk.keys))
        return written

    def read_cells(self, config: RepoConfig, requests: Sequence[CellRequest]) -> list[Cells]:
        """What the store holds for each request, all in one pipeline."""
        if not requests:
            return []
        suffix = config.project.encode()
        versioned = config.registry.enable_online_feature_view_versioning
        keys, commands = [], []
        for request in requests:
            own = [key + suffix for key in request.keys]
            keys += own
            commands += _read_commands(own, compute_versioned_name(request.view, versioned), request.names)
        with _named_errors(requests[0].view, "answer"):
            replies = exchange(self._get_client(config.online_store), keys, commands)
            for reply in replies:
                if isinstance(reply, RedisError):
                    raise reply
        return _split(requests, replies)


@contextmanager
def _named_errors(view: FeatureView, should: str) -> Iterator[None]:
    """Errors of the server as ours; its address may hold a password, so it is not in them."""
    try:
        yield
    except RedisError as error:
        raise OnlineStoreUnavailableError(
            f"Redis must {should} for feature view {view.name} (got {type(error).__name__}: {error}); "
            "what it holds are whole rows: try again when it is well"
        ) from error


def _check_written(view: FeatureView, chunk: RowChunk, replies: Sequence[Any]) -> None:
    failed = [place for place, reply in enumerate(replies) if isinstance(reply, RedisError)]
    if failed:
        first, key = replies[failed[0]], chunk.keys[failed[0]]
        raise OnlineStoreUnavailableError(
            f"Redis must take every row of feature view {view.name} (it refused {len(failed)} of {len(replies)}, "
            f"first entity key {key_text(key)}: {type(first).__name__}: {first}); write the table again when it can"
        ) from first


@lru_cache(maxsize=4096)
def _field_names(view: str, names: tuple[str, ...]) -> tuple[bytes, ...]:
    """Fields of an entity's hash in which a view's features are, as bulk strings."""
    return tuple(bulk(_mmh3(f"{view}:{name}")) for name in names)


def _time_field(view: str) -> bytes:
    return bulk(f"_ts:{view}".encode())


def _write_commands(chunk: RowChunk, view: str, key_ttl_seconds: int) -> list[bytes]:
    """A call of the script per row."""
    words = 8 + 2 * len(chunk.names)
    head = b"*%d\r\n" % words + bulk(b"EVALSHA") + bulk(DIGEST) + bulk(b"1")
    times = map(bulk, encode_times(chunk.event_micros))
    micros = (bulk(b"%d" % moment) for moment in chunk.event_micros.tolist())
    expiry = bulk(b"%d" % key_ttl_seconds)
    parts: list[Iterable[bytes]] = [repeat(head), map(bulk, chunk.keys), repeat(_time_field(view)), times, micros]
    parts.append(repeat(expiry))
    for field, values in zip(_field_names(view, chunk.names), chunk.values, strict=True):
        headers = {length: field + b"$%d\r\n" % length for length in set(map(len, values))}
        parts += [map(headers.__getitem__, map(len, values)), values, repeat(b"\r\n")]
    return [b"".join(row) for row in zip(*parts, strict=False)]


def _read_commands(keys: list[bytes], view: str, names: tuple[str, ...]) -> list[bytes]:
    head = b"*%d\r\n" % (3 + len(names)) + bulk(b"HMGET")
    tail = b"\r\n" + b"".join(_field_names(view, names)) + _time_field(view)
    headers = {length: head + b"$%d\r\n" % length for length in set(map(len, keys))}
    return [headers[len(key)] + key + tail for key in keys]


def _split(requests: Sequence[CellRequest], replies: list[list[bytes | None]]) -> list[Cells]:
    found, start = [], 0
    for request in requests:
        rows = replies[start : start + len(request.keys)]
        start += len(request.keys)
        columns = list(zip(*rows, strict=True)) if rows else [()] * (len(request.names) + 1)
        found.append(Cells(values=columns[:-1], event_micros=decode_times(columns[-1])))
    return found
