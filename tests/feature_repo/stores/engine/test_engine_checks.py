"""What may not be served is refused before anything is written, with view, key and reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureView, Field
from feast.types import Array, Float32, Float64, Int64

from feature_repo.stores.engine.checks import InvalidRowsError
from tests.feature_repo.stores.engine.engine_repos import (
    END,
    PACKED_SQLITE,
    PIN,
    START,
    hours,
    open_repo,
    pins,
    read,
    source,
    vector_view,
    vectors,
    write,
    write_vectors,
)

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("online", [PACKED_SQLITE, "sqlite"])
@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ([1.0, 2.0], r"embedding must be 3 wide \(got 2\)"),
        ([1.0] * 4, r"embedding must be 3 wide \(got 4\)"),
        (None, r"embedding must be a vector 3 wide \(got null\)"),
        ([1.0, NAN, 2.0], "embedding must hold finite numbers"),
        ([1.0, 2.0, -INFINITE], "embedding must hold finite numbers"),
        ([1.0, None, 2.0], "embedding must hold finite numbers"),
    ],
)
def test_vector_that_may_not_be_served_is_refused_before_the_first_chunk(
    tmp_path: Path, online: str, vector: Any, reason: str
) -> None:
    view = vector_view(tmp_path)
    rows = vectors(9)
    rows[7]["embedding"] = vector
    write_vectors(tmp_path, rows)
    store = open_repo(tmp_path, [view], online=online)
    with pytest.raises(InvalidRowsError, match=rf"feature view vectors, pin_id=7: {reason}"):
        store.materialize(START, END)
    assert read(store, "vectors", pins(9))["count"] == [None] * 9
    assert store.get_feature_view("vectors").materialization_intervals == []


def _scored(folder: Path, column: str, values: dict[int, Any]) -> FeatureView:
    """Nine Pins of a number and a list, of which one column has other values."""
    rows = [{"pin_id": key, "score": 0.5, "parts": [1.0, 2.0], column: values.get(key)} for key in range(9)]
    types = {"pin_id": pa.int64(), "score": pa.float64(), "parts": pa.list_(pa.float32())}
    fields = [
        Field(name="pin_id", dtype=Int64),
        Field(name="score", dtype=Float64),
        Field(name="parts", dtype=Array(Float32)),
    ]
    write(folder, "scored", types, rows)
    return FeatureView(name="scored", entities=[PIN], schema=fields, source=source(folder, "scored"))


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("score", -INFINITE, r"score must be finite \(got -inf\)"),
        ("parts", [1.0, INFINITE], "elements of parts must be finite"),
        ("parts", [NAN], "elements of parts must be finite"),
    ],
)
def test_number_that_packed_stores_refuse_is_refused_before_the_first_chunk(
    tmp_path: Path, column: str, value: Any, reason: str
) -> None:
    fine = {key: ([] if column == "parts" else NAN) for key in range(5)}
    store = open_repo(tmp_path, [_scored(tmp_path, column, {**fine, 7: value})])
    with pytest.raises(InvalidRowsError, match=rf"feature view scored, pin_id=7: {reason}"):
        store.materialize(START, END)
    assert read(store, "scored", pins(9))["score"] == [None] * 9


def test_infinite_number_goes_to_a_store_of_feast(tmp_path: Path) -> None:
    store = open_repo(tmp_path, [_scored(tmp_path, "score", {7: INFINITE})], online="sqlite")
    store.materialize(START, END)
    assert read(store, "scored", pins(9))["score"][7] == INFINITE


def test_repaired_snapshot_is_written(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, [{**row, "embedding": None} for row in vectors(3)])
    store = open_repo(tmp_path, [view])
    with pytest.raises(InvalidRowsError, match=r"pin_id=0: .* and 1 more rows near it"):
        store.materialize(START, END)
    write_vectors(tmp_path, vectors(3))
    store.materialize(START, END)
    assert read(store, "vectors", pins(3))["count"] == [0, 10, 20]


def test_null_join_key_is_refused(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, [*vectors(2), {**vectors(1)[0], "pin_id": None}])
    store = open_repo(tmp_path, [view])
    with pytest.raises(InvalidRowsError, match="join key pin_id must not be null"):
        store.materialize(START, END)


def test_rows_outside_the_interval_are_not_judged(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, [{**vectors(1)[0], "embedding": None}], "bad")
    write_vectors(tmp_path, vectors(1, hours(5), first=1), "good")
    store = open_repo(tmp_path, [view])
    store.materialize(hours(4), END)
    assert read(store, "vectors", pins(2))["count"] == [None, 10]


@pytest.mark.parametrize("kept", [0.3, 0.97])
def test_truncated_file_is_named(tmp_path: Path, kept: float) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(3), "a")
    path = write_vectors(tmp_path, vectors(3, hours(1)), "b")
    store = open_repo(tmp_path, [view])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ValueError, match=rf"feature view vectors: {path} must be a whole parquet file"):
        store.materialize(START, END)
    assert read(store, "vectors", pins(3))["count"] == [None] * 3


def test_damaged_page_is_named(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    path = write_vectors(tmp_path, vectors(200))
    store = open_repo(tmp_path, [view])
    raw = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(10).column(1)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    raw[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match=rf"{path} must be a whole parquet file"):
        store.materialize(START, END)
    assert read(store, "vectors", pins(1))["count"] == [None]


@pytest.mark.parametrize("absent", ["pin_id", "embedding", "count", "event_timestamp"])
def test_file_without_a_column_is_named(tmp_path: Path, absent: str) -> None:
    view = vector_view(tmp_path)
    path = write_vectors(tmp_path, vectors(3), "b")
    store = open_repo(tmp_path, [view])
    pq.write_table(pq.read_table(path).drop_columns([absent]), path)
    with pytest.raises(ValueError, match=rf"feature view vectors.*{path}.*\(lacks \['{absent}'\]\)"):
        store.materialize(START, END)
    assert read(store, "vectors", pins(3))["count"] == [None] * 3


_VECTOR_TYPES = {"pin_id": pa.int64(), "embedding": pa.list_(pa.float32()), "count": pa.int64(), "label": pa.string()}


@pytest.mark.parametrize(
    ("column", "stored", "value"),
    [
        ("count", pa.string(), "many"),
        ("count", pa.float64(), 0.5),
        ("pin_id", pa.string(), "p"),
        ("label", pa.binary(), b"\xff"),
    ],
)
def test_values_of_another_type_are_named_before_the_first_chunk(
    tmp_path: Path, column: str, stored: pa.DataType, value: Any
) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(9), "a")
    odd = [{**row, column: value} for row in vectors(1, hours(1), first=9)]
    path = write(tmp_path, "vectors", {**_VECTOR_TYPES, column: stored}, odd, "b")
    store = open_repo(tmp_path, [view])
    with pytest.raises(ValueError, match=rf"feature view vectors in {path}: {column} must be .* \(got {stored}"):
        store.materialize(START, END)
    assert read(store, "vectors", pins(9))["count"] == [None] * 9


def test_values_that_fit_in_another_type_are_written(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    rows = [{**row, "count": str(row["count"])} for row in vectors(5)]
    write(tmp_path, "vectors", {**_VECTOR_TYPES, "count": pa.string(), "label": pa.large_string()}, rows)
    store = open_repo(tmp_path, [view])
    store.materialize(START, END)
    assert read(store, "vectors", pins(5))["count"] == [0, 10, 20, 30, 40]


def test_row_without_its_time_is_refused_unless_its_file_is_outside_the_interval(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(3, hours(8)), "b")
    path = write_vectors(tmp_path, [*vectors(2), {**vectors(1)[0], "event_timestamp": None}], "a")
    store = open_repo(tmp_path, [view])
    with pytest.raises(ValueError, match=rf"feature view vectors: {path} must have event_timestamp .*got 1 nulls"):
        store.materialize(START, END)
    assert read(store, "vectors", pins(3))["count"] == [None] * 3
    store.materialize(hours(7), END)
    assert read(store, "vectors", pins(3))["count"] == [0, 10, 20]


def test_view_without_a_file_says_how_to_make_one(tmp_path: Path) -> None:
    store = open_repo(tmp_path, [vector_view(tmp_path)])
    with pytest.raises(FileNotFoundError, match="feature view vectors must have a snapshot"):
        store.materialize(START, END)
