"""Keys, aliases, partitions and types of the views that are joined."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureView, Field, OnDemandFeatureView, RequestSource, ValueType
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    Set,
    String,
    Struct,
    UnixTimestamp,
    Uuid,
)

from feature_repo.stores.offline.snapshots import SnapshotError
from tests.feature_repo.stores.offline.repos import (
    MOMENT,
    SHELF,
    SHOP,
    entities,
    hours,
    joined,
    open_repo,
    sales_view,
    source,
    write_rows,
)

KEYS = [
    (ValueType.STRING, pa.string(), pa.large_string(), ["x", "y"]),
    (ValueType.INT64, pa.int64(), pa.int32(), [1, 2]),
    (ValueType.INT32, pa.int32(), pa.uint8(), [1, 2]),
    (ValueType.BYTES, pa.binary(), pa.large_binary(), [b"\x00", b"\xff"]),
    (ValueType.BOOL, pa.bool_(), pa.bool_(), [True, False]),
    (ValueType.UNIX_TIMESTAMP, MOMENT, pa.timestamp("ns", tz="Asia/Tokyo"), [hours(1), hours(2)]),
    (ValueType.DOUBLE, pa.float64(), pa.float32(), [0.5, 0.25]),
]


@pytest.mark.parametrize(("value_type", "stored", "given", "keys"), KEYS, ids=lambda each: str(each)[:20])
def test_keys_of_every_type_are_joined(
    tmp_path: Path, value_type: ValueType, stored: pa.DataType, given: pa.DataType, keys: list[Any]
) -> None:
    rows = [
        {"key": keys[0], "sold": 1, "at": 1},
        {"key": keys[1], "sold": 2, "at": 1},
        {"key": None, "sold": 3, "at": 1},
    ]
    write_rows(tmp_path / "sales" / "all.parquet", rows, {"key": stored})
    store = open_repo(tmp_path)
    entity = Entity(name="thing", join_keys=["key"], value_type=value_type)
    store.apply([entity, sales_view("sales", [entity])])
    moments = pa.array([hours(3)] * 3, MOMENT)
    wanted = pa.table({"key": pa.array([keys[1], keys[0], None], given), "event_timestamp": moments})
    assert joined(store, wanted) == [2, 1, None]


def test_composite_key_matches_only_when_each_part_does(tmp_path: Path) -> None:
    sold = [("a", 1, 11), ("a", 2, 12), ("b", 1, 21), ("a", None, 99)]
    rows = [{"shop_id": shop, "shelf_id": shelf, "sold": value, "at": 1} for shop, shelf, value in sold]
    write_rows(tmp_path / "sales" / "all.parquet", rows)
    store = open_repo(tmp_path)
    store.apply([SHOP, SHELF, sales_view("sales", [SHOP, SHELF])])
    asked = [("b", 1), ("a", 2), ("b", 2), ("a", None), ("a", 1)]
    wanted = entities([{"shelf_id": shelf, "shop_id": shop, "at": 2} for shop, shelf in asked])
    assert joined(store, wanted) == [21, 12, None, None, 11]


def test_one_view_under_two_aliases_and_another_view_in_one_request(tmp_path: Path) -> None:
    write_rows(
        tmp_path / "sales" / "all.parquet", [{"shop_id": k, "sold": v, "at": 1} for k, v in (("a", 1), ("b", 2))]
    )
    write_rows(tmp_path / "fill" / "all.parquet", [{"shelf_id": 5, "fill": 0.5, "at": 1}])
    store = open_repo(tmp_path)
    sales, fill = sales_view("sales"), sales_view("fill", [SHELF], {"fill": Float64}, name="fill")
    near = sales.with_name("near").with_join_key_map({"shop_id": "near_id"})
    service = FeatureService(name="both", features=[sales.with_name("here"), near, fill])
    store.apply([SHOP, SHELF, sales, fill, service])
    wanted = entities([{"shop_id": "a", "near_id": "b", "shelf_id": 5, "at": 2}])
    row = store.get_historical_features(wanted, service, full_feature_names=True).to_arrow().to_pylist()[0]
    assert (row["here__sold"], row["near__sold"], row["fill__fill"]) == (1, 2, 0.5)


def test_view_without_entities_gives_its_newest_row_to_every_entity_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "sales" / "all.parquet", [{"sold": 1, "at": 1}, {"sold": 2, "at": 3}])
    store = open_repo(tmp_path)
    store.apply([sales_view("sales", [])])
    assert joined(store, entities([{"shop_id": "a", "at": at} for at in (0, 2, 4)])) == [None, 1, 2]


def test_zero_ttl_is_a_match_of_any_age(tmp_path: Path) -> None:
    write_rows(tmp_path / "sales" / "all.parquet", [{"shop_id": "a", "sold": 1, "at": 1}])
    store = open_repo(tmp_path)
    store.apply([SHOP, sales_view("sales", ttl=timedelta(0))])
    assert joined(store, entities([{"shop_id": "a", "at": 24 * 3650}])) == [1]


def test_hive_folders_are_keys_and_features(tmp_path: Path) -> None:
    for region, shelf, sold in (("north east", 1, 10), ("south", 2, 20)):
        folder = tmp_path / "sales" / f"region={region.replace(' ', '%20')}" / f"shelf_id={shelf}"
        write_rows(folder / "part-0.parquet", [{"sold": sold, "at": 1}])
    store = open_repo(tmp_path)
    store.apply([SHELF, sales_view("sales", [SHELF], {"sold": Int64, "region": String})])
    wanted = entities([{"shelf_id": shelf, "at": 2} for shelf in (2, 1, 3)])
    assert joined(store, wanted) == [20, 10, None]
    assert joined(store, wanted, "sales:region") == ["south", "north east", None]


def test_newest_of_hundreds_of_daily_files_is_found_and_only_the_window_is_opened(tmp_path: Path) -> None:
    for day in range(200):
        write_rows(tmp_path / "sales" / f"date={day:03d}.parquet", [{"shop_id": "a", "sold": day, "at": 24 * day}])
    pq.write_table(
        pa.table({"shop_id": ["a"], "event_timestamp": pa.array([hours(0)], MOMENT)}), tmp_path / "old.parquet"
    )
    (tmp_path / "old.parquet").rename(tmp_path / "sales" / "date=000.parquet")
    store = open_repo(tmp_path)
    store.apply([SHOP, sales_view("sales")])
    assert joined(store, entities([{"shop_id": "a", "at": 24 * day + 1} for day in (150, 199, 3)])) == [150, 199, 3]


def test_files_whose_key_has_another_width_are_joined_together(tmp_path: Path) -> None:
    for number, kind in enumerate((pa.int32(), pa.int64(), pa.int16())):
        write_rows(
            tmp_path / "sales" / f"{number}.parquet",
            [{"shelf_id": 1, "sold": number, "at": number}],
            {"shelf_id": kind},
        )
    store = open_repo(tmp_path)
    store.apply([SHELF, sales_view("sales", [SHELF])])
    assert joined(store, entities([{"shelf_id": 1, "at": at} for at in (0.5, 1.5, 2.5)])) == [0, 1, 2]


DAY = hours(24)
TYPES = [
    (Int32, pa.int32(), 7),
    (Int64, pa.int64(), 2**62),
    (Float32, pa.float32(), 0.5),
    (Float64, pa.float64(), float("inf")),
    (Bool, pa.bool_(), True),
    (String, pa.string(), "é"),
    (Bytes, pa.binary(), b"\x00\xff"),
    (UnixTimestamp, MOMENT, DAY),
    (Json, pa.string(), '{"a": 1}'),
    (Uuid, pa.string(), "6f1c0a0e-0000-4000-8000-000000000001"),
    (Decimal, pa.string(), "1.50"),
    (Array(Int64), pa.list_(pa.int64()), [1, None, 3]),
    (Array(Float32), pa.list_(pa.float32()), [0.5, 1.0]),
    (Array(Float32), pa.list_(pa.float32(), 2), [0.5, 1.0]),
    (Array(Float32), pa.large_list(pa.float32()), []),
    (Array(String), pa.list_(pa.string()), ["a", "", None]),
    (Array(Bool), pa.list_(pa.bool_()), [True, False]),
    (Array(Bytes), pa.list_(pa.binary()), [b"a"]),
    (Array(UnixTimestamp), pa.list_(MOMENT), [DAY]),
    (Array(Array(Int64)), pa.list_(pa.list_(pa.int64())), [[1], [], [2, 3]]),
    (Set(Int64), pa.list_(pa.int64()), [1, 2]),
    (Map, pa.map_(pa.string(), pa.string()), [("a", "b")]),
    (Map, pa.struct([("a", pa.int64())]), {"a": 1}),
    (Struct({"a": Int64, "b": String}), pa.struct([("a", pa.int64()), ("b", pa.string())]), {"a": 1, "b": "x"}),
    (Array(Struct({"a": Int64})), pa.list_(pa.struct([("a", pa.int64())])), [{"a": 1}, {"a": None}]),
    (String, pa.dictionary(pa.int8(), pa.string()), "coded"),
]


@pytest.mark.parametrize(("declared", "stored", "value"), TYPES, ids=lambda each: str(each)[:40])
def test_values_of_every_type_come_back_and_null_stays_null(
    tmp_path: Path, declared: Any, stored: pa.DataType, value: Any
) -> None:
    rows = [
        {"shelf_id": 1, "x": value, "at": 1},
        {"shelf_id": 2, "x": None, "at": 1},
        {"shelf_id": 3, "x": value, "at": 1},
    ]
    write_rows(tmp_path / "sales" / "all.parquet", rows, {"x": stored})
    store = open_repo(tmp_path)
    store.apply([SHELF, sales_view("sales", [SHELF], {"x": declared})])
    wanted = entities([{"shelf_id": shelf, "at": 2} for shelf in (3, 2, 1, 9, 3)])
    assert joined(store, wanted, "sales:x") == [value, None, value, None, value]


def test_vectors_of_two_widths_are_gathered_as_lists(tmp_path: Path) -> None:
    kind = {"x": pa.list_(pa.float32())}
    write_rows(tmp_path / "sales" / "0.parquet", [{"shelf_id": k, "x": [k, 0.5], "at": 1} for k in (1, 2)], kind)
    write_rows(tmp_path / "sales" / "1.parquet", [{"shelf_id": 3, "x": [1.0, 2.0, 3.0], "at": 1}], kind)
    store = open_repo(tmp_path)
    store.apply([SHELF, sales_view("sales", [SHELF], {"x": Array(Float32)})])
    wanted = entities([{"shelf_id": shelf, "at": 2} for shelf in (3, 9, 2, 1)])
    assert joined(store, wanted, "sales:x") == [[1.0, 2.0, 3.0], None, [2.0, 0.5], [1.0, 0.5]]


def test_vector_of_another_width_than_declared_is_named_if_it_is_asked_for(tmp_path: Path) -> None:
    kind = {"x": pa.list_(pa.float32())}
    write_rows(tmp_path / "sales" / "0.parquet", [{"shelf_id": 1, "x": [1.0, 0.5], "at": 1}], kind)
    rows = [{"shelf_id": 2, "x": [2.0, 0.5], "at": 1}, {"shelf_id": 3, "x": [1.0], "at": 1}]
    path = write_rows(tmp_path / "sales" / "1.parquet", [*rows, {"shelf_id": 4, "x": None, "at": 1}], kind)
    store = open_repo(tmp_path)
    vector = Field(name="x", dtype=Array(Float32), tags={"dim": "2"})
    view = FeatureView(name="sales", entities=[SHELF], schema=[vector], source=source("sales", "sales_source"))
    store.apply([SHELF, view])
    wanted = entities([{"shelf_id": shelf, "at": 2} for shelf in (4, 2, 1)])
    assert joined(store, wanted, "sales:x") == [None, [2.0, 0.5], [1.0, 0.5]]
    wrong = entities([{"shelf_id": shelf, "at": 2} for shelf in (1, 3)])
    with pytest.raises(SnapshotError, match=rf"feature view sales in {path}: x must be 2 wide \(got 1\)"):
        joined(store, wrong, "sales:x")


def test_on_demand_view_with_request_data_is_the_same_in_a_stream(tmp_path: Path) -> None:
    write_rows(tmp_path / "sales" / "all.parquet", [{"shop_id": "a", "sold": 4, "at": 1}])
    request = RequestSource(name="ask", schema=[Field(name="price", dtype=Int64)])

    def worth(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"worth": inputs["sold"].astype(float) * inputs["price"]})

    sales = sales_view("sales")
    view = OnDemandFeatureView(
        name="value",
        sources=[sales, request],
        schema=[Field(name="worth", dtype=Float64)],
        udf=worth,
        udf_string="worth",
        mode="pandas",
    )
    store = open_repo(tmp_path)
    store.apply([SHOP, sales, view])
    wanted = entities([{"shop_id": "a", "price": price, "at": 2} for price in (10, 20, 30)])
    job = store.get_historical_features(wanted.to_pandas(), ["sales:sold", "value:worth"])
    assert job.to_df()["worth"].tolist() == [40.0, 80.0, 120.0]
    assert job.to_record_batches(2).read_all()["worth"].to_pylist() == [40.0, 80.0, 120.0]


def test_feature_that_the_view_lacks_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "sales" / "all.parquet", [{"shop_id": "a", "sold": 4, "at": 1}])
    store = open_repo(tmp_path)
    view = sales_view("sales")
    store.apply([SHOP, view])
    offline = store.provider.offline_store
    wanted = entities([{"shop_id": "a", "at": 2}])
    with pytest.raises(ValueError, match=r"feature view sales must have the features .*got \['won'\], has \['sold'\]"):
        offline.get_historical_features(store.config, [view], ["sales:won"], wanted, store.registry, "shops")


def test_view_of_a_source_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    view: FeatureView = sales_view("s3://bucket/sales")
    store = open_repo(tmp_path)
    offline = store.provider.offline_store
    wanted = entities([{"shop_id": "a", "at": 2}])
    with pytest.raises(ValueError, match=r"source sales_source must be local .*s3://bucket/sales"):
        offline.get_historical_features(store.config, [view], ["sales:sold"], wanted, store.registry, "shops")


def test_join_key_map_of_one_key_leaves_the_others_their_names(tmp_path: Path) -> None:
    rows = [{"shop_id": "a", "shelf_id": shelf, "sold": 10 * shelf, "at": 1} for shelf in (1, 2)]
    write_rows(tmp_path / "sales" / "all.parquet", rows)
    store = open_repo(tmp_path)
    sales = sales_view("sales", [SHOP, SHELF])
    near = sales.with_name("near").with_join_key_map({"shop_id": "near_id"})
    service = FeatureService(name="mapped", features=[near])
    store.apply([SHOP, SHELF, sales, service])
    wanted = entities([{"near_id": "a", "shelf_id": shelf, "at": 2} for shelf in (2, 3)])
    assert store.get_historical_features(wanted, service).to_arrow()["sold"].to_pylist() == [20, None]
