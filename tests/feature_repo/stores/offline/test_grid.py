"""Matches by a grid of moments and keys against a search of every row, and against the `ASOF` join."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast.types import Array, Float32, Int64
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.stores.offline import asof_join
from feature_repo.stores.offline.gather import NO_MATCH
from feature_repo.stores.offline.grid import Grid, make_grid
from feature_repo.stores.offline.pages import PAGE_ROWS
from tests.feature_repo.stores.offline.repos import (
    MOMENT,
    SHELF,
    SHOP,
    entities,
    joined,
    open_repo,
    sales_view,
    write_rows,
)

NEVER = np.iinfo(np.int64).min
NUMBERS = st.sampled_from([-(2**63), -1, 0, 7, 2**63 - 1, None])
WORDS = st.sampled_from(["a", "b", "é", None])
ROW = st.tuples(NUMBERS, WORDS, st.integers(0, 4), st.sampled_from([NEVER, 0, 1, 2]))
ENTITY_ROW = st.tuples(NUMBERS, WORDS, st.integers(-1, 6))

Row = tuple[int | None, str | None, int, int]


def found_rows(rows: Sequence[Row]) -> pa.Table:
    numbers, words, times, created = zip(*rows, strict=True)
    return pa.table(
        {
            "reference": pa.array(range(len(rows)), pa.int64()),
            "k0": pa.array(numbers, pa.int64()),
            "k1": pa.array(words, pa.string()),
            "t": pa.array(times, pa.int64()),
            "created": pa.array(created, pa.int64()),
        }
    )


def searched(rows: Sequence[Row], number: int | None, word: str | None, at: int, ttl: int) -> int:
    """Place of the newest row, ties by created, then by place."""
    alike = [
        (time, created, place)
        for place, (other, text, time, created) in enumerate(rows)
        if None not in (number, word) and (other, text) == (number, word) and time <= at
    ]
    if not alike or (ttl and at - max(alike)[0] > ttl):
        return NO_MATCH
    return max(alike)[2]


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(ROW, min_size=1, max_size=20),
    asked=st.lists(ENTITY_ROW, min_size=1, max_size=10),
    ttl=st.integers(0, 3),
)
def test_grid_finds_the_rows_that_a_search_finds(
    rows: list[Row], asked: list[tuple[int | None, str | None, int]], ttl: int
) -> None:
    grid = make_grid(found_rows(rows), 2)
    if grid is None:
        assert all(None in row[:2] for row in rows)
        return
    numbers, words, times = zip(*asked, strict=True)
    keys = [pa.chunked_array([pa.array(numbers, pa.int64())]), pa.chunked_array([pa.array(words, pa.string())])]
    matched = grid.match(keys, np.array(times), ttl)
    assert matched.tolist() == [searched(rows, *row, ttl) for row in asked]


def grid_of(keys: pa.Array, times: Sequence[int] | None = None) -> Grid | None:
    size = len(keys)
    zeros = pa.array(np.zeros(size, np.int64))
    moments = zeros if times is None else pa.array(times, pa.int64())
    return make_grid(pa.table({"reference": pa.array(range(size)), "k0": keys, "t": moments, "created": zeros}), 1)


@pytest.mark.parametrize("keys", [pa.array([1.0, 2.0]), pa.array([True, False]), pa.array([1, 2**64 - 1], pa.uint64())])
def test_keys_that_are_no_int64_text_or_bytes_have_no_grid(keys: pa.Array) -> None:
    assert grid_of(keys) is None


def test_rows_of_many_moments_have_no_grid() -> None:
    keys = pa.array(np.arange(5000))
    assert grid_of(keys, range(5000)) is None
    assert grid_of(keys, [time % 3 for time in range(5000)]) is not None


def test_whole_numbers_far_apart_take_as_many_cells_as_there_are_keys() -> None:
    keys = np.arange(-500_000, 500_000, 10) * 2**40
    grid = grid_of(pa.array(keys))
    assert grid is not None
    asked = pa.chunked_array([pa.array([keys[3], keys[3] + 1, keys[-1]])])
    assert grid.match([asked], np.zeros(3, np.int64), 0).tolist() == [3, NO_MATCH, 99_999]


@pytest.mark.parametrize(
    ("stored", "asked", "matched"),
    [
        (pa.array([5, 6], pa.int32()), pa.array([6, 2**63 + 6, None], pa.uint64()), [1, NO_MATCH, NO_MATCH]),
        (pa.array([5, 6], pa.int64()), pa.array([None, 5], pa.int8()), [NO_MATCH, 0]),
        (pa.array(["x", "y"]), pa.array(["y", None, "z"]).dictionary_encode(), [1, NO_MATCH, NO_MATCH]),
        (pa.array(["x", "y"]), pa.array(["x", "y"], pa.large_string()), [0, 1]),
        (pa.array([b"\0", b"\xff"]), pa.array([b"\xff", b""], pa.large_binary()), [1, NO_MATCH]),
    ],
)
def test_keys_of_another_width_are_the_same_keys(stored: pa.Array, asked: pa.Array, matched: list[int]) -> None:
    grid = grid_of(stored)
    assert grid is not None
    assert grid.match([pa.chunked_array([asked])], np.zeros(len(asked), np.int64), 0).tolist() == matched


@pytest.mark.parametrize("by_created", [False, True])
def test_grid_and_join_give_the_same_table(tmp_path: Path, by_created: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    for number in range(3):
        rows = [
            {
                "shop_id": None if key == 9 else f"shop {key}",
                "shelf_id": int(random.integers(0, 4)),
                "sold": int(random.integers(0, 1000)),
                "vector": [float(key)] * (2 if key % 5 else 3),
                "at": int(random.integers(0, 6)) * 12,
                "written": None if key == 3 else int(random.integers(0, 80)),
            }
            for key in random.integers(0, 10, 80).tolist()
        ]
        write_rows(tmp_path / "sales" / f"{number}.parquet", rows, {"vector": pa.list_(pa.float32())})
    view = sales_view("sales", [SHOP, SHELF], {"sold": Int64, "vector": Array(Float32)}, timedelta(hours=24))
    asked = [
        {"shop_id": f"shop {random.integers(0, 11)}", "shelf_id": int(random.integers(0, 5)), "at": float(hour)}
        for hour in random.integers(-5, 90, 500)
    ]
    store = open_repo(tmp_path)
    store.apply([SHOP, SHELF, view])

    def answer() -> list[dict[str, Any]]:
        job = store.get_historical_features(
            entities(asked), ["sales:sold", "sales:vector"], filter_by_created_timestamp=by_created
        )
        rows: list[dict[str, Any]] = job.to_arrow().to_pylist()
        return rows

    by_grid = answer()
    assert 100 < sum(row["vector"] is not None for row in by_grid) < 500
    monkeypatch.setattr(asof_join, "MAX_ROWS", 0)
    assert answer() == by_grid


def test_gather_reads_pages_of_row_groups_of_any_size(tmp_path: Path) -> None:
    sizes = [1, PAGE_ROWS, PAGE_ROWS + 1, 3]
    ids = np.arange(sum(sizes))
    moment = pa.array(np.zeros(len(ids), np.int64)).cast(MOMENT)
    table = pa.table({"shelf_id": ids, "sold": ids * 2, "event_timestamp": moment, "created_timestamp": moment})
    (tmp_path / "sales").mkdir()
    with pq.ParquetWriter(tmp_path / "sales" / "0.parquet", table.schema) as writer:
        for start, size in zip(np.cumsum([0, *sizes]).tolist(), sizes, strict=False):
            writer.write_table(table.slice(start, size))
    store = open_repo(tmp_path, threads=3)
    store.apply([SHELF, sales_view("sales", [SHELF], ttl=timedelta(0))])
    asked = np.random.default_rng(1).permutation(len(ids) + 1)
    rows = pa.table({"shelf_id": asked, "event_timestamp": pa.array(np.ones(len(asked), np.int64)).cast(MOMENT)})
    assert joined(store, rows) == [None if key == len(ids) else 2 * key for key in asked.tolist()]
