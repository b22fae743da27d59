"""Random snapshots and entity rows against a search of every row, and against Feast's own DuckDB store."""

import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureService, FeatureStore, RepoConfig
from feast.types import Array, Float32, Int64
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.feature_repo.stores.offline.repos import (
    MOMENT,
    SHELF,
    SHOP,
    hours,
    open_repo,
    sales_view,
    write_rows,
)

TTL = timedelta(hours=48)
SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TYPES = {
    "shop_id": pa.string(),
    "shelf_id": pa.int64(),
    "sold": pa.int64(),
    "vector": pa.list_(pa.float32()),
}
SHOPS = st.sampled_from(["a", "b", "é", None])
SHELVES = st.sampled_from([1, 2, None])
HOURS = st.sampled_from([0, 1, 24, 48, 49, 72, 97])
FEATURE_ROW = st.fixed_dictionaries(
    {
        "shop_id": SHOPS,
        "shelf_id": SHELVES,
        "sold": st.integers(0, 1000) | st.none(),
        "vector": st.none() | st.lists(st.just(0.5), min_size=2, max_size=2) | st.lists(st.just(1.0), max_size=3),
        "at": HOURS,
        "written": HOURS | st.none(),
    }
)
FILES = st.lists(st.lists(FEATURE_ROW, min_size=1, max_size=8), min_size=1, max_size=3)
ENTITY_ROW = st.fixed_dictionaries({"shop_id": SHOPS, "other_id": SHOPS, "shelf_id": SHELVES, "at": HOURS})
ENTITY_ROWS = st.lists(ENTITY_ROW, max_size=8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A view by shop and shelf, under two aliases, and one by shop alone without TTL."""
    store = open_repo(tmp_path_factory.mktemp("oracle"))
    features = {"sold": Int64, "vector": Array(Float32)}
    both = sales_view("both", [SHOP, SHELF], features, TTL, "both")
    shop = sales_view("shop", [SHOP], features, timedelta(0), "by_shop")
    other = both.with_name("other").with_join_key_map({"shop_id": "other_id"})
    service = FeatureService(name="all", features=[both.with_name("here"), other, shop])
    store.apply([SHOP, SHELF, both, shop, service])
    return store


def acceptable(
    files: Sequence[Sequence[dict[str, Any]]], keys: dict[str, Any], at: float, ttl: float | None, known_only: bool
) -> list[tuple[Any, Any]]:
    """Features that the newest usable row may have; several where rows tie in both timestamps."""
    if None in keys.values():
        return [(None, None)]
    usable = [row for rows in files for row in rows if all(row[name] == key for name, key in keys.items())]
    usable = [row for row in usable if row["at"] <= at and (ttl is None or row["at"] >= at - ttl)]
    if known_only:
        usable = [row for row in usable if row["written"] is not None and row["written"] <= at]
    if not usable:
        return [(None, None)]

    def order(row: dict[str, Any]) -> tuple[float, float]:
        return row["at"], -1 if row["written"] is None else row["written"]

    newest = max(map(order, usable))
    return [(row["sold"], row["vector"]) for row in usable if order(row) == newest]


def write_files(folder: Path, files: Sequence[Sequence[dict[str, Any]]]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for number, rows in enumerate(files):
        write_rows(folder / f"{number}.parquet", rows, TYPES)


def entity_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    keys = {"shop_id": pa.string(), "other_id": pa.string(), "shelf_id": pa.int64()}
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in keys.items()}
    return pa.table({**columns, "event_timestamp": pa.array([hours(row["at"]) for row in rows], MOMENT)})


@SETTINGS
@given(
    both=FILES,
    shop=FILES,
    rows=ENTITY_ROWS,
    known_only=st.booleans(),
    kind=st.sampled_from(["pandas", "arrow", "file", "stream"]),
)
def test_every_row_has_the_features_that_a_search_finds(
    store: FeatureStore,
    both: list[list[dict[str, Any]]],
    shop: list[list[dict[str, Any]]],
    rows: list[dict[str, Any]],
    known_only: bool,
    kind: str,
) -> None:
    folder = Path(store.config.repo_path)
    write_files(folder / "both", both)
    write_files(folder / "shop", shop)
    given_rows: Any = entity_table(rows)
    if kind == "pandas":
        given_rows = given_rows.to_pandas()
    elif kind == "file":
        pq.write_table(given_rows, folder / "rows.parquet", row_group_size=3)
        given_rows = folder / "rows.parquet"
    service = store.get_feature_service("all")
    job = store.get_historical_features(
        given_rows, service, full_feature_names=True, filter_by_created_timestamp=known_only
    )
    table = job.to_record_batches(3).read_all() if kind == "stream" else job.to_arrow()
    assert table.num_rows == len(rows)
    for found, row in zip(table.to_pylist(), rows, strict=True):
        assert (found["shop_id"], found["event_timestamp"]) == (row["shop_id"], hours(row["at"]))
        here = {"shop_id": row["shop_id"], "shelf_id": row["shelf_id"]}
        there = {"shop_id": row["other_id"], "shelf_id": row["shelf_id"]}
        for name, files, keys, ttl in (
            ("here", both, here, 48),
            ("other", both, there, 48),
            ("by_shop", shop, {"shop_id": row["shop_id"]}, None),
        ):
            pair = (found[f"{name}__sold"], found[f"{name}__vector"])
            assert pair in acceptable(files, keys, row["at"], ttl, known_only)


@SETTINGS
@given(files=FILES, start=HOURS, length=HOURS)
def test_pulled_rows_are_those_that_a_search_finds(
    store: FeatureStore, files: list[list[dict[str, Any]]], start: int, length: int
) -> None:
    write_files(Path(store.config.repo_path) / "both", files)
    view = store.get_feature_view("both")
    offline, end = store.provider.offline_store, start + length
    columns = (["shop_id", "shelf_id"], ["sold"], "event_timestamp", "created_timestamp", hours(start), hours(end))
    everything = [row for rows in files for row in rows if start <= row["at"] <= end]
    pulled = offline.pull_all_from_table_or_query(store.config, view.batch_source, *columns).to_arrow()
    assert pulled["sold"].to_pylist() == [row["sold"] for row in everything]
    newest = offline.pull_latest_from_table_or_query(store.config, view.batch_source, *columns).to_arrow().to_pylist()
    keys = [(row["shop_id"], row["shelf_id"]) for row in newest]
    assert sorted(keys, key=str) == sorted({(row["shop_id"], row["shelf_id"]) for row in everything}, key=str)
    for row, (shop, shelf) in zip(newest, keys, strict=True):
        same = [each for each in everything if (each["shop_id"], each["shelf_id"]) == (shop, shelf)]
        last = max((each["at"], -1 if each["written"] is None else each["written"]) for each in same)
        tied = [each["sold"] for each in same if (each["at"], _written(each)) == last]
        assert row["sold"] in tied


def _written(row: dict[str, Any]) -> float:
    return -1 if row["written"] is None else float(row["written"])


@pytest.mark.parametrize("known_only", [False, True])
def test_values_are_those_of_feasts_own_duckdb_store(tmp_path: Path, known_only: bool) -> None:
    """Where both are right: keys that are there, one row per moment, every row written."""
    shops, shelves = ["a", "b", "c"], [1, 2]
    sold = [
        {
            "shop_id": shop,
            "shelf_id": shelf,
            "sold": 1000 * day + 10 * i + shelf,
            "at": 24 * day,
            "written": 30 * day + i,
        }
        for day in range(6)
        for i, shop in enumerate(shops)
        for shelf in shelves
    ]
    write_rows(tmp_path / "sales.parquet", sold)
    asked = [
        {"shop_id": shops[n % 3], "other_id": None, "shelf_id": shelves[n % 2], "at": (n * 7) % 240 + 0.5}
        for n in range(120)
    ]
    rows = entity_table(asked).drop_columns(["other_id"]).to_pandas()
    frames = []
    for kind in ("feature_repo.stores.offline.asof_store.AsofOfflineStore", "duckdb"):
        config = RepoConfig(
            project="compared",
            provider="local",
            registry=str(tmp_path / f"{kind}.db"),
            offline_store={"type": kind},
            entity_key_serialization_version=3,
            repo_path=tmp_path,
        )
        store = FeatureStore(config=config)
        store.apply([SHOP, SHELF, sales_view(tmp_path / "sales.parquet", [SHOP, SHELF])])
        job = store.get_historical_features(rows.copy(), ["sales:sold"], filter_by_created_timestamp=known_only)
        frames.append(job.to_df().sort_values(["event_timestamp", "shop_id", "shelf_id"]).reset_index(drop=True))
    ours, stock = frames
    assert ours["sold"].notna().sum() > 50
    assert ours["sold"].isna().sum() > 10
    assert ours[stock.columns].astype(stock.dtypes).equals(stock)
