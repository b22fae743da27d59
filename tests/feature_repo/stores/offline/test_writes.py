"""Rows and logs added to the offline store: whole or not at all."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureService, FeatureStore
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.types import Int64

from tests.feature_repo.stores.offline.repos import (
    MOMENT,
    SHELF,
    entities,
    hours,
    joined,
    open_repo,
    sales_view,
    source,
    write_rows,
)
from tests.feature_repo.stores.offline.test_streams import files_of_at_most, names

ASKED = entities([{"shelf_id": shelf, "at": 9} for shelf in (1, 2)])


def new_rows(**columns: Any) -> pa.Table:
    stamp = pa.array([hours(5)], MOMENT)
    filled = {"shelf_id": pa.array([2]), "sold": pa.array([20]), "event_timestamp": stamp, "created_timestamp": stamp}
    return pa.table({**filled, **columns})


def repo(folder: Path, path: str, *, written: bool = True) -> FeatureStore:
    if written:
        target = folder / path if path.endswith(".parquet") else folder / path / "first.parquet"
        write_rows(target, [{"shelf_id": 1, "sold": 10, "at": 1, "written": 1}])
    store = open_repo(folder)
    store.apply([SHELF, sales_view(path, [SHELF])])
    return store


def write(store: FeatureStore, rows: pa.Table) -> None:
    view = store.get_feature_view("sales")
    store.provider.offline_store.offline_write_batch(store.config, view, rows, None)


@pytest.mark.parametrize("path", ["sales", "sales.parquet"])
def test_pushed_rows_are_read_back_beside_the_old_ones(tmp_path: Path, path: str) -> None:
    store = repo(tmp_path, path)
    store.write_to_offline_store("sales", new_rows().to_pandas())
    write(store, new_rows(shelf_id=pa.array([1]), sold=pa.array([11])))
    assert joined(store, ASKED) == [11, 20]
    assert not list(tmp_path.rglob("*.partial"))


def test_rows_pushed_to_a_folder_are_a_file_of_their_own(tmp_path: Path) -> None:
    store = repo(tmp_path, "sales")
    before = (tmp_path / "sales" / "first.parquet").read_bytes()
    write(store, new_rows())
    assert (tmp_path / "sales" / "first.parquet").read_bytes() == before
    assert len(names(tmp_path / "sales")) == 2


@pytest.mark.parametrize("path", ["sales", "sales.parquet"])
def test_first_rows_of_a_view_make_its_source(tmp_path: Path, path: str) -> None:
    store = repo(tmp_path, path, written=False)
    write(store, new_rows())
    assert joined(store, ASKED) == [None, 20]


@pytest.mark.parametrize("path", ["sales", "sales.parquet"])
def test_full_disk_leaves_the_source_as_it_was(tmp_path: Path, path: str) -> None:
    store = repo(tmp_path, path)
    many = pa.concat_tables([new_rows()] * 5000)
    rows = many.set_column(1, "sold", pa.array(range(5000)))
    with files_of_at_most(4000), pytest.raises(OSError, match=r"must be written whole .*free disk space and run again"):
        write(store, rows)
    assert joined(store, ASKED) == [10, None]
    assert not list(tmp_path.rglob("*.partial"))


def test_rows_are_cast_to_the_types_of_the_files(tmp_path: Path) -> None:
    store = repo(tmp_path, "sales")
    stamp = pa.array([pd.Timestamp(hours(5)).value + 7], pa.timestamp("ns", tz="Asia/Tokyo"))
    write(store, new_rows(sold=pa.array([20.0]), event_timestamp=stamp))
    assert joined(store, ASKED) == [10, 20]
    schemas = {pq.read_schema(path) for path in (tmp_path / "sales").iterdir()}
    assert len(schemas) == 1


NAIVE = pa.array([hours(5).replace(tzinfo=None)], pa.timestamp("us"))
WRONG = {
    "naive": ({"event_timestamp": NAIVE}, r"event_timestamp with a time zone \(got timestamp\[us\]\)"),
    "half": ({"sold": pa.array([0.5])}, r"rows of sales must have sold as int64 \(got double"),
    "extra": ({"won": pa.array([1])}, r"have the columns of .*first.parquet \(lack \[\], have \['won'\]"),
    "no key": ({"shelf_id": pa.array([None], pa.int64())}, "rows of sales must all have shelf_id"),
    "no time": ({"event_timestamp": pa.array([None], MOMENT)}, "rows of sales must all have event_timestamp"),
}


@pytest.mark.parametrize("name", WRONG)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    store = repo(tmp_path, "sales")
    columns, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        write(store, new_rows(**columns))
    assert names(tmp_path / "sales") == ["first.parquet"]


def test_glob_cannot_be_appended_to(tmp_path: Path) -> None:
    write_rows(tmp_path / "sales" / "first.parquet", [{"shelf_id": 1, "sold": 10, "at": 1}])
    store = open_repo(tmp_path)
    store.apply([SHELF, sales_view("sales/*.parquet", [SHELF])])
    with pytest.raises(ValueError, match=r"must be a folder or a file to append to .*name its folder"):
        write(store, new_rows())


def test_mapped_columns_are_written_under_their_own_names(tmp_path: Path) -> None:
    write_rows(tmp_path / "sales" / "first.parquet", [{"shelf_id": 1, "n": 10, "at": 1}])
    store = open_repo(tmp_path)
    view = sales_view("sales", [SHELF], {"sold": Int64})
    view.batch_source = source("sales", field_mapping={"n": "sold"})
    store.apply([SHELF, view])
    write(store, new_rows())
    assert joined(store, ASKED) == [10, 20]
    assert all("n" in pq.read_schema(path).names for path in (tmp_path / "sales").iterdir())


@pytest.mark.parametrize("partition_by", [None, ["kind"]])
@pytest.mark.parametrize("as_folder", [False, True])
def test_logs_are_added_to_their_folder(tmp_path: Path, partition_by: list[str] | None, as_folder: bool) -> None:
    store = repo(tmp_path, "sales")
    destination = FileLoggingDestination(path="logs", partition_by=partition_by)
    service = FeatureService(
        name="logged", features=[store.get_feature_view("sales")], logging_config=LoggingConfig(destination=destination)
    )
    store.apply([service])
    logs = pa.table({"shelf_id": [1, 2], "kind": ["a", "b"], "__log_timestamp": pa.array([hours(1)] * 2, MOMENT)})
    if as_folder:
        (tmp_path / "batch").mkdir()
        pq.write_table(logs, tmp_path / "batch" / "0.parquet")
    for _ in range(2):
        store.write_logged_features(tmp_path / "batch" if as_folder else logs, service)
    found = store.provider.offline_store.pull_all_from_table_or_query(
        store.config, destination.to_data_source(), [], ["shelf_id", "kind"], "__log_timestamp"
    ).to_arrow()
    assert sorted(zip(found["shelf_id"].to_pylist(), found["kind"].to_pylist(), strict=True)) == [
        (1, "a"), (1, "a"), (2, "b"), (2, "b"),
    ]  # fmt: skip
    assert not list((tmp_path / "logs").glob(".*"))
