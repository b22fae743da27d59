"""Parquet files that all ways of a case read, made from a seed and written in parts.

Dims: N rows of one part, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

PART_ROWS = 100_000
START = datetime(2024, 3, 1, tzinfo=UTC)
"""First moment of the histories."""
MOMENT = pa.timestamp("us", tz="UTC")
PINS, USERS, ENTITIES = "pins.parquet", "users.parquet", "entities.parquet"
PIN_DAYS = 3
"""Snapshots of Pins; of users there is one a day."""
_DAY_US = 86_400_000_000
_SEED = 7
_TOPICS = ("art", "food", "garden", "home", "sport")

Integers = npt.NDArray[np.int64]


def write_pins(folder: Path, *, rows: int, dim: int, at: datetime) -> None:
    """A vector and five scalars for each of `rows` Pins, all of one moment."""
    random = np.random.default_rng(_SEED)
    parts = (
        pa.table({"pin_id": ids, **_vector(random, len(ids), dim), **_five_scalars(random, len(ids)), **_at(at, ids)})
        for ids in _ranges(rows)
    )
    _write(folder / PINS, parts)


def _ranges(rows: int) -> Iterator[Integers]:
    for start in range(0, rows, PART_ROWS):
        yield np.arange(start, min(start + PART_ROWS, rows))


def _vector(random: np.random.Generator, rows: int, dim: int) -> dict[str, pa.Array]:
    flat = pa.array(random.standard_normal(rows * dim, np.float32))
    return {"embedding": pa.FixedSizeListArray.from_arrays(flat, dim).cast(pa.list_(pa.float32()))}


def _five_scalars(random: np.random.Generator, rows: int) -> dict[str, Any]:
    return {
        "impressions": random.integers(0, 10_000, rows),
        "clicks": random.integers(0, 1_000, rows),
        "rate": random.random(rows),
        "quality": random.random(rows),
        "topic": np.array(_TOPICS)[random.integers(0, len(_TOPICS), rows)],
    }


def _at(moment: datetime, ids: Integers) -> dict[str, pa.Array]:
    when = pa.array([moment], MOMENT).take(pa.array(np.zeros(len(ids), np.int64)))
    return {"event_timestamp": when, "created_timestamp": when}


def write_history(path: Path, key: str, *, entities: int, days: int, dim: int) -> None:
    """A vector and two scalars for each entity and day, a row group a day at least."""
    random = np.random.default_rng(_SEED)
    parts = (
        pa.table({key: ids, **_vector(random, len(ids), dim), **_two_scalars(random, ids), **_at(moment, ids)})
        for moment in (START + timedelta(days=day) for day in range(days))
        for ids in _ranges(entities)
    )
    _write(path, parts)


def _two_scalars(random: np.random.Generator, ids: Integers) -> dict[str, Any]:
    return {"clicks": random.integers(0, 1_000, len(ids)), "rate": random.random(len(ids))}


def write_entities(path: Path, *, rows: int, users: int, pins: int, days: int) -> None:
    """Pairs of a user and a Pin, at moments of all days and of one more."""
    random = np.random.default_rng(_SEED + 1)
    parts = (_entities(random, len(ids), users, pins, days) for ids in _ranges(rows))
    _write(path, parts)


def _entities(random: np.random.Generator, rows: int, users: int, pins: int, days: int) -> pa.Table:
    micros = int(START.timestamp()) * 1_000_000 + random.integers(0, (days + 1) * _DAY_US, rows)
    keys = {"user_id": users, **({"pin_id": pins} if pins else {})}
    # One key in about twenty has no features.
    columns = {name: random.integers(0, count + count // 20 + 1, rows) for name, count in keys.items()}
    return pa.table({**columns, "event_timestamp": pa.array(micros).cast(pa.int64()).cast(MOMENT)})


def _write(path: Path, parts: Iterator[pa.Table]) -> None:
    first = next(parts)
    with pq.ParquetWriter(path, first.schema, use_dictionary=False) as writer:
        writer.write_table(first)
        for part in parts:
            writer.write_table(part)


def make(path: str, folder: Path, params: dict[str, Any]) -> None:
    """Files of a case, for the module that measures it."""
    folder.mkdir(parents=True, exist_ok=True)
    recent = datetime.now(UTC) - timedelta(hours=1)
    if path == "point_in_time":
        _make_histories(folder, params)
    else:
        write_pins(folder, rows=params.get("population") or params["rows"], dim=params["dim"], at=recent)


def _make_histories(folder: Path, params: dict[str, Any]) -> None:
    days, dim = params["days"], params["dim"]
    write_history(folder / USERS, "user_id", entities=params["users"], days=days, dim=dim)
    if params["pins"]:
        write_history(folder / PINS, "pin_id", entities=params["pins"], days=PIN_DAYS, dim=dim)
    write_entities(folder / ENTITIES, rows=params["rows"], users=params["users"], pins=params["pins"], days=days)
