"""Online reads by the bare clients: ready-made keys, vectors by `numpy.frombuffer`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import redis
from feast import FeatureView, ValueType
from feast.infra.online_stores.helpers import _mmh3

from feature_repo.stores.packed.checks import view_join_keys
from feature_repo.stores.packed.encode import list_header
from feature_repo.stores.packed.entity_keys import entity_keys
from tests.benchmarks.store_paths.online_tables import TABLE, redis_port
from tests.benchmarks.store_paths.repos import PROJECT, VIEW

RawRead = Callable[[npt.NDArray[np.int64]], tuple[npt.NDArray[np.float32], Any]]


def redis_read(view: FeatureView, settings: dict[str, Any], names: Sequence[str], params: dict[str, Any]) -> RawRead:
    """A pipeline with one `HMGET` per Pin; the first name is the vector's."""
    client = redis.Redis(port=redis_port(settings))
    fields = [*(_mmh3(f"{VIEW}:{name}") for name in names), f"_ts:{VIEW}"]
    keys, dim = _keys(view, int(params["population"]), PROJECT.encode()), int(params["dim"])
    start = _vector_start(dim)

    def read(ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], Any]:
        pipeline = client.pipeline(transaction=False)
        for each in ids.tolist():
            pipeline.hmget(keys[each], fields)
        replies = pipeline.execute()
        raw = b"".join([reply[0][start:] for reply in replies])
        return np.frombuffer(raw, np.float32).reshape(len(ids), dim), replies

    return read


def sqlite_read(view: FeatureView, settings: dict[str, Any], names: Sequence[str], params: dict[str, Any]) -> RawRead:
    """One query for all cells of all Pins."""
    connection = sqlite3.connect(settings["path"])
    keys, dim = _keys(view, int(params["population"])), int(params["dim"])
    start, vector = _vector_start(dim), names[0]
    named = ", ".join(f"'{name}'" for name in names)

    def read(ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], Any]:
        asked = [keys[each] for each in ids.tolist()]
        marks = ", ".join("?" * len(asked))
        query = (
            f"SELECT entity_key, feature_name, value, event_ts FROM {TABLE} "
            f"WHERE entity_key IN ({marks}) AND feature_name IN ({named})"
        )
        cells = connection.execute(query, asked).fetchall()
        vectors = {key: value for key, name, value, _ in cells if name == vector}
        raw = b"".join([vectors[key][start:] for key in asked])
        return np.frombuffer(raw, np.float32).reshape(len(ids), dim), cells

    return read


def _keys(view: FeatureView, count: int, suffix: bytes = b"") -> list[bytes]:
    return entity_keys(view_join_keys(view), [pa.array(np.arange(count))], suffix)


def _vector_start(dim: int) -> int:
    return len(list_header(ValueType.FLOAT_LIST, 4 * dim))


RAW_READS: dict[str, Callable[[FeatureView, dict[str, Any], Sequence[str], dict[str, Any]], RawRead]] = {
    "redis": redis_read,
    "sqlite": sqlite_read,
}
