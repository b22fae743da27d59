"""Every kind of entity frame gives the same rows in the same order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from feature_repo.stores.offline.snapshots import SnapshotError
from tests.feature_repo.stores.offline.repos import (
    MOMENT,
    SHOP,
    entities,
    hours,
    joined,
    open_repo,
    sales_view,
    write_rows,
)

ROWS = entities(
    [
        {"shop_id": "b", "at": 5, "label": 1},
        {"shop_id": "a", "at": 3, "label": 0},
        {"shop_id": None, "at": 4, "label": 1},
        {"shop_id": "b", "at": 5, "label": 1},
        {"shop_id": "a", "at": 1, "label": 0},
    ]
)
SOLD = [7, 2, None, 7, None]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    write_rows(tmp_path / "sales" / "a.parquet", [{"shop_id": "a", "sold": 2, "at": 2}])
    write_rows(tmp_path / "sales" / "b.parquet", [{"shop_id": "b", "sold": 7, "at": 2}])
    store = open_repo(tmp_path)
    store.apply([SHOP, sales_view("sales")])
    return store


def as_pandas(rows: pa.Table, _: Path) -> pd.DataFrame:
    return pd.DataFrame(rows.to_pandas())


def as_nanoseconds(rows: pa.Table, _: Path) -> pd.DataFrame:
    frame = pd.DataFrame(rows.to_pandas())
    return frame.assign(event_timestamp=frame["event_timestamp"].astype("datetime64[ns, UTC]"))


def as_objects(rows: pa.Table, _: Path) -> pd.DataFrame:
    frame = pd.DataFrame(rows.to_pandas())
    return frame.assign(event_timestamp=pd.Series(rows["event_timestamp"].to_pylist(), dtype=object))


def as_categories(rows: pa.Table, _: Path) -> pd.DataFrame:
    return pd.DataFrame(rows.to_pandas()).astype({"shop_id": "category"})


def as_arrow(rows: pa.Table, _: Path) -> pa.Table:
    return pa.concat_tables([rows.slice(0, 2), rows.slice(2)])


def as_file(rows: pa.Table, folder: Path) -> str:
    pq.write_table(rows, folder / "rows.parquet", row_group_size=2)
    return str(folder / "rows.parquet")


def as_folder(rows: pa.Table, folder: Path) -> Path:
    (folder / "rows").mkdir()
    for start in (0, 3):
        pq.write_table(rows.slice(start, 3 if start == 0 else 2), folder / "rows" / f"{start}.parquet")
    return folder / "rows"


def as_query(rows: pa.Table, folder: Path) -> str:
    return f"SELECT * FROM read_parquet('{as_file(rows, folder)}') WHERE label >= 0;"


KINDS = [as_pandas, as_nanoseconds, as_objects, as_categories, as_arrow, as_file, as_folder, as_query]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_entity_rows_of_any_kind_keep_their_order_count_and_columns(
    store: FeatureStore, tmp_path: Path, kind: Callable[[pa.Table, Path], Any]
) -> None:
    table = store.get_historical_features(kind(ROWS, tmp_path), ["sales:sold"]).to_arrow()
    assert table["sold"].to_pylist() == SOLD
    assert table["label"].to_pylist() == ROWS["label"].to_pylist()
    assert [str(key) for key in table["shop_id"].to_pylist()] == ["b", "a", "None", "b", "a"]
    assert table.column_names == [*ROWS.column_names, "sold"]


def test_data_frame_of_the_result_has_one_row_per_entity_row(store: FeatureStore) -> None:
    frame = store.get_historical_features(ROWS.to_pandas().set_index("label"), ["sales:sold"]).to_df()
    assert frame.index.tolist() == [0, 1, 2, 3, 4]
    assert frame["sold"].tolist()[:2] == [7.0, 2.0]
    assert frame["event_timestamp"].dtype == pd.DatetimeTZDtype("us", "UTC")


def test_job_of_a_query_can_be_run_again_after_its_tables_are_gone(store: FeatureStore, tmp_path: Path) -> None:
    query = as_query(ROWS, tmp_path)
    job = store.get_historical_features(query, ["sales:sold"])
    (tmp_path / "rows.parquet").unlink()
    assert [job.to_arrow()["sold"].to_pylist() for _ in range(2)] == [SOLD, SOLD]


def test_metadata_names_the_time_range_and_the_other_columns(store: FeatureStore, tmp_path: Path) -> None:
    metadata = store.get_historical_features(as_file(ROWS, tmp_path), ["sales:sold"]).metadata
    assert (metadata.min_event_timestamp, metadata.max_event_timestamp) == (hours(1), hours(5))
    assert metadata.keys == ["shop_id", "label"]


def test_lone_column_of_timestamps_is_the_time_of_the_rows(store: FeatureStore) -> None:
    assert joined(store, ROWS.rename_columns(["shop_id", "label", "seen_at"])) == SOLD


@pytest.mark.parametrize("kind", [as_pandas, as_arrow, as_file], ids=lambda kind: kind.__name__)
def test_no_entity_rows_give_the_columns_of_the_result(
    store: FeatureStore, tmp_path: Path, kind: Callable[[pa.Table, Path], Any]
) -> None:
    job = store.get_historical_features(kind(ROWS.slice(0, 0), tmp_path), ["sales:sold"])
    assert job.to_arrow().num_rows == 0
    assert job.to_arrow().schema.field("sold").type == pa.int64()
    assert job.to_record_batches().read_all().column_names == [*ROWS.column_names, "sold"]


NAIVE = ROWS.set_column(2, "event_timestamp", ROWS["event_timestamp"].cast(pa.timestamp("us")))
TEXT = ROWS.set_column(2, "event_timestamp", ROWS["event_timestamp"].cast(pa.string()))
NULL = ROWS.set_column(2, "event_timestamp", pa.array([hours(1), None, hours(2), None, hours(3)], MOMENT))
TWO_TIMES = ROWS.rename_columns(["shop_id", "label", "seen_at"]).append_column("sent_at", ROWS["event_timestamp"])
WRONG = {
    "naive": (NAIVE, r"event_timestamp of entity rows must be timestamps with a time zone \(got timestamp\[us\]\)"),
    "text": (TEXT, r"event_timestamp of entity rows must be timestamps .*\(got string\)"),
    "null": (NULL, r"must not be null \(got 2 nulls\)"),
    "two times": (TWO_TIMES, r"a column event_timestamp, or just one .*\(got \['seen_at', 'sent_at'\]"),
    "no time": (ROWS.drop_columns(["event_timestamp"]), r"a column event_timestamp, or just one .*got \[\]"),
    "no key": (ROWS.drop_columns(["shop_id"]), r"must have \['shop_id'\], the join key of sales"),
    "taken name": (ROWS.append_column("sold", ROWS["label"]), r"got sold of feature view sales again"),
}


@pytest.mark.parametrize("kind", [as_arrow, as_file], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", WRONG)
def test_entity_rows_that_cannot_be_joined_are_refused(
    store: FeatureStore, tmp_path: Path, kind: Callable[[pa.Table, Path], Any], name: str
) -> None:
    rows, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        store.get_historical_features(kind(rows, tmp_path), ["sales:sold"])


def test_key_of_another_kind_is_refused_with_both_types(store: FeatureStore) -> None:
    numbers = ROWS.set_column(0, "shop_id", pa.array(range(5)))
    with pytest.raises(ValueError, match=r"shop_id must hold text \(string\) .*feature view sales do \(got int64\)"):
        store.get_historical_features(numbers, ["sales:sold"]).to_arrow()


def test_keys_that_are_all_null_match_nothing(store: FeatureStore) -> None:
    assert joined(store, ROWS.set_column(0, "shop_id", pa.nulls(5))) == [None] * 5


def test_query_that_does_not_run_is_shown(store: FeatureStore) -> None:
    with pytest.raises(ValueError, match=r"entity_df must be a query .*got 'SELECT \* FROM nowhere'"):
        store.get_historical_features("SELECT * FROM nowhere", ["sales:sold"])


def test_path_without_files_is_shown(store: FeatureStore) -> None:
    with pytest.raises(FileNotFoundError, match=r"entity_df must name parquet files \(got none at .*gone.parquet"):
        store.get_historical_features("gone.parquet", ["sales:sold"])


def test_columns_of_several_types_are_refused(store: FeatureStore) -> None:
    frame = ROWS.to_pandas().assign(label=np.array([1, "x", 2, "y", 3], dtype=object))
    with pytest.raises(ValueError, match="must hold values of one type"):
        store.get_historical_features(frame, ["sales:sold"])


def test_files_of_entity_rows_with_other_columns_are_refused(store: FeatureStore, tmp_path: Path) -> None:
    folder = as_folder(ROWS, tmp_path)
    pq.write_table(ROWS.drop_columns(["label"]), folder / "z.parquet")
    with pytest.raises(SnapshotError, match=r"z.parquet must have the columns of .*0.parquet"):
        store.get_historical_features(folder, ["sales:sold"])


def test_kind_of_entity_frame_that_is_unknown_is_named(store: FeatureStore) -> None:
    with pytest.raises(ValueError, match=r"entity_df must be a pandas or Arrow table.*got list"):
        store.get_historical_features([1], ["sales:sold"])
