"""The same rows by the bare clients; all is made ready beforehand, so that only client and store are timed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis
from feast import FeatureStore
from feast.infra.online_stores.helpers import _mmh3

from feature_repo.stores.packed.checks import checked_table
from feature_repo.stores.packed.rows import RowChunk, table_chunks
from feature_repo.stores.packed.times import encode_times
from feature_repo.stores.sqlite.times import stock_seconds
from tests.benchmarks.store_paths.made_data import PART_ROWS
from tests.benchmarks.store_paths.online_tables import TABLE, redis_port
from tests.benchmarks.store_paths.repos import FEATURES, PROJECT, VIEW

PIPELINE_ROWS = 2_000
INSERT_ROWS = 10_000
_MILVUS_ROWS = 5_000

RawWrite = Callable[[FeatureStore, dict[str, Any], Path], float]


def write_redis(store: FeatureStore, settings: dict[str, Any], path: Path) -> float:
    """Seconds of a pipelined `HSET` per row."""
    seconds = 0.0
    with redis.Redis(port=redis_port(settings)) as client:
        for chunk in _chunks(store, path, PIPELINE_ROWS, PROJECT.encode()):
            mappings = _hashes(chunk)
            began = time.perf_counter()
            pipeline = client.pipeline(transaction=False)
            for key, mapping in zip(chunk.keys, mappings, strict=True):
                pipeline.hset(key, mapping=mapping)
            pipeline.execute()
            seconds += time.perf_counter() - began
    return seconds


def _chunks(store: FeatureStore, path: Path, num_rows: int, suffix: bytes = b"") -> Iterator[RowChunk]:
    view = store.get_feature_view(VIEW)
    for table in _tables(path):
        yield from table_chunks(checked_table(view, table), num_rows=num_rows, key_suffix=suffix)


def _tables(path: Path) -> Iterator[pa.Table]:
    for batch in pq.ParquetFile(path).iter_batches(batch_size=PART_ROWS):
        yield pa.Table.from_batches([batch])


def _hashes(chunk: RowChunk) -> list[dict[Any, Any]]:
    names = [_mmh3(f"{VIEW}:{name}") for name in chunk.names]
    columns = [*chunk.values, encode_times(chunk.event_micros)]
    return [dict(zip([*names, f"_ts:{VIEW}"], row, strict=True)) for row in zip(*columns, strict=True)]


def write_sqlite(store: FeatureStore, settings: dict[str, Any], path: Path) -> float:
    """Seconds of one transaction of `executemany` into Feast's table, its indexes included."""
    columns = "entity_key, feature_name, value, value_text, event_ts, created_ts"
    statement = f"INSERT INTO {TABLE} ({columns}) VALUES (?, ?, ?, ?, ?, ?)"
    seconds = 0.0
    with closing(sqlite3.connect(settings["path"])) as connection:
        for chunk in _chunks(store, path, INSERT_ROWS):
            rows = _cells(chunk)
            began = time.perf_counter()
            connection.executemany(statement, rows)
            seconds += time.perf_counter() - began
        began = time.perf_counter()
        connection.commit()
        seconds += time.perf_counter() - began
    return seconds


def _cells(chunk: RowChunk) -> list[tuple[Any, ...]]:
    when = stock_seconds(int(chunk.event_micros[0]))
    columns = zip(chunk.names, chunk.values, chunk.texts(), strict=True)
    return [
        (key, name, value, text, when, when)
        for name, values, texts in columns
        for key, value, text in zip(chunk.keys, values, texts, strict=True)
    ]


def write_milvus(store: FeatureStore, settings: dict[str, Any], path: Path) -> float:  # noqa: ARG001
    """Seconds of `MilvusClient.insert` of numpy rows into a collection of the same fields."""
    online = store._get_provider().online_store
    client, seconds = online._connect(store.config), 0.0
    dtypes = {field["name"]: field["type"].name for field in client.describe_collection(TABLE)["fields"]}
    for table in _tables(path):
        for start in range(0, table.num_rows, _MILVUS_ROWS):
            rows = _documents(table.slice(start, _MILVUS_ROWS), dtypes)
            began = time.perf_counter()
            client.insert(TABLE, rows)
            seconds += time.perf_counter() - began
    return seconds


def _documents(table: pa.Table, dtypes: dict[str, str]) -> list[dict[str, Any]]:
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    vectors = flat.reshape(table.num_rows, -1)
    scalars = table.select([name for name in FEATURES if name != "embedding"]).to_pylist()
    ids = np.asarray(table["pin_id"]).tolist()
    as_text = {name for name, kind in dtypes.items() if kind == "VARCHAR"}
    times = {"event_ts": 0, "created_ts": 0}
    key = next(name for name in dtypes if name.endswith("_pk"))
    return [
        {
            key: f"{each:032x}",
            "pin_id": str(each) if "pin_id" in as_text else each,
            "embedding": vector,
            **{name: str(value) if name in as_text else value for name, value in row.items()},
            **times,
        }
        for each, vector, row in zip(ids, vectors, scalars, strict=True)
    ]


RAW_WRITES: dict[str, RawWrite] = {"redis": write_redis, "sqlite": write_sqlite, "milvus": write_milvus}
