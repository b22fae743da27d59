"""The as-of offline store through Feast's API, on rows worked by hand."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureService, FeatureStore, FeatureView, Field, FileSource, OnDemandFeatureView
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.types import Int64

from feature_repo.declarations import feature_views
from feature_repo.entities import PIN, USER
from feature_repo.layout import create_repo, open_store
from feature_repo.stores.offline.snapshots import MissingSnapshotsError
from tests.feature_repo.repos import MANIFEST, MOMENT, activity_schema, hours, write_snapshot

SECOND = timedelta(seconds=1)
FEATURE = "user_activity:impressions_1d"


def user_row(value: int | None, usable: float, written: float | None = None, user: int | None = 1) -> dict[str, Any]:
    created = None if written is None else hours(written)
    return {"user_id": user, "impressions_1d": value, "event_timestamp": hours(usable), "created_timestamp": created}


def entity_rows(moments: Sequence[datetime], users: Sequence[int | None] | None = None) -> pd.DataFrame:
    keys = pd.array(users or [1] * len(moments), dtype="Int64")
    return pd.DataFrame({"user_id": keys, "event_timestamp": pd.to_datetime(list(moments), utc=True)})


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    create_repo(tmp_path, MANIFEST)
    views = feature_views(MANIFEST)
    open_store(tmp_path).apply([USER, PIN, views["user_activity"], views["pin_activity"]])
    return tmp_path


@pytest.fixture
def write(repo: Path) -> Callable[..., Path]:
    def write_rows(*rows: dict[str, Any], name: str = "date=2024-03-01") -> Path:
        return write_snapshot(repo, "user_activity", name, activity_schema("user"), rows)

    return write_rows


def joined(repo: Path, rows: pd.DataFrame | str, feature: str = FEATURE, **options: Any) -> list[Any]:
    job = open_store(repo).get_historical_features(rows, [feature], **options)
    values: list[Any] = job.to_arrow()[feature.split(":")[1]].to_pylist()
    return values


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (hours(1) - timedelta(microseconds=1), None),
        (hours(1), 7),
        (hours(1 + 48), 7),
        (hours(1 + 48) + timedelta(microseconds=1), None),
    ],
)
def test_window_is_closed_at_both_ends(
    repo: Path, write: Callable[..., Path], moment: datetime, expected: int | None
) -> None:
    write(user_row(7, usable=1))
    assert joined(repo, entity_rows([moment])) == [expected]


def test_newest_row_that_is_outside_max_age_hides_no_older_one(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=0), user_row(2, usable=10))
    assert joined(repo, entity_rows([hours(10) - SECOND, hours(10), hours(58), hours(59)])) == [1, 2, 2, None]


def test_tie_goes_to_the_row_written_last_and_never_to_one_without_a_time(
    repo: Path, write: Callable[..., Path]
) -> None:
    write(user_row(1, usable=1, written=2), user_row(2, usable=1, written=5), name="a")
    write(user_row(3, usable=1, written=3), user_row(4, usable=1, written=None), name="b")
    assert joined(repo, entity_rows([hours(2)])) == [2]


def test_rows_keep_their_order_count_and_columns(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1), user_row(2, usable=2, user=2))
    rows = entity_rows([hours(3), hours(1.5), hours(3), hours(3), hours(3)], [2, 1, 9, 2, None])
    rows["label"] = ["e", "d", "c", "b", "a"]
    table = open_store(repo).get_historical_features(rows, [FEATURE], full_feature_names=True).to_arrow()
    assert table.column_names == ["user_id", "event_timestamp", "label", "user_activity__impressions_1d"]
    assert table["label"].to_pylist() == ["e", "d", "c", "b", "a"]
    assert table["user_activity__impressions_1d"].to_pylist() == [2, 1, None, 2, None]


def test_null_value_of_the_newest_row_stays_null(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1), user_row(None, usable=2))
    assert joined(repo, entity_rows([hours(3)])) == [None]


def test_large_keys_are_not_merged_when_pandas_made_floats_of_them(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1, user=2**53), user_row(2, usable=1, user=2**53 + 1))
    rows = entity_rows([hours(2), hours(2)], [2**53 + 1, None])
    assert joined(repo, rows) == [2, None]
    assert joined(repo, rows.astype({"user_id": "float64"}))[1] is None


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai"])
def test_times_of_any_unit_and_zone_are_one_moment(
    repo: Path, write: Callable[..., Path], unit: str, zone: str
) -> None:
    write(user_row(1, usable=1), user_row(2, usable=2))
    rows = entity_rows([hours(2) - SECOND, hours(2)])
    rows["event_timestamp"] = rows["event_timestamp"].dt.tz_convert(zone).astype(f"datetime64[{unit}, {zone}]")
    assert joined(repo, rows) == [1, 2]


@pytest.mark.parametrize("kind", [pa.timestamp("ns", tz="UTC"), pa.timestamp("ms", tz="UTC"), pa.timestamp("ns")])
def test_files_with_times_of_another_unit_are_read(repo: Path, write: Callable[..., Path], kind: pa.DataType) -> None:
    path = write(user_row(1, usable=1, written=1), user_row(2, usable=2, written=2))
    table = pq.read_table(path)
    for name in ("event_timestamp", "created_timestamp"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(kind))
    pq.write_table(table, path)
    assert joined(repo, entity_rows([hours(2) - SECOND, hours(2)])) == [1, 2]
    store = open_store(repo)
    store.materialize(hours(0), hours(3), feature_views=["user_activity"])
    assert store.get_online_features([FEATURE], [{"user_id": 1}]).to_dict()["impressions_1d"] == [2]


def test_nanosecond_feature_is_not_used_within_the_microsecond_before_it(
    repo: Path, write: Callable[..., Path]
) -> None:
    path = write(user_row(1, usable=1))
    table = pq.read_table(path)
    late = pa.array([pd.Timestamp(hours(1)).value + 500], pa.timestamp("ns", tz="UTC"))
    pq.write_table(table.set_column(table.schema.get_field_index("event_timestamp"), "event_timestamp", late), path)
    rows = entity_rows([hours(1), hours(1) + timedelta(microseconds=1)])
    assert joined(repo, rows) == [None, 1]


def test_naive_entity_times_are_refused(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1))
    rows = pd.DataFrame({"user_id": [1], "event_timestamp": [datetime(2024, 3, 1, 2)]})
    with pytest.raises(ValueError, match=r"with a time zone \(got timestamp\[.*utc=True"):
        joined(repo, rows)


def test_null_entity_times_are_refused(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1))
    rows = entity_rows([hours(1), hours(2)])
    rows.loc[0, "event_timestamp"] = pd.NaT
    with pytest.raises(ValueError, match=r"must not be null \(got 1 nulls\)"):
        joined(repo, rows)


def test_missing_join_key_is_named(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1))
    with pytest.raises(ValueError, match=r"\['user_id'\], the join key of user_activity"):
        joined(repo, entity_rows([hours(1)]).rename(columns={"user_id": "reader"}))


def test_view_without_a_snapshot_is_named_with_its_remedy(repo: Path) -> None:
    with pytest.raises(
        MissingSnapshotsError, match=r"feature view user_activity .* write its .* as `headwater features` does"
    ):
        joined(repo, entity_rows([hours(1)]))


def test_snapshot_without_a_declared_column_is_named(repo: Path, write: Callable[..., Path]) -> None:
    path = write(user_row(1, usable=1))
    pq.write_table(pq.read_table(path).drop_columns(["impressions_1d"]), path)
    with pytest.raises(ValueError, match=r"date=2024-03-01.parquet .*lacks \['impressions_1d'\]"):
        joined(repo, entity_rows([hours(2)]))


def test_values_of_another_width_become_the_declared_type(repo: Path, write: Callable[..., Path]) -> None:
    path = write(user_row(5, usable=1))
    table = pq.read_table(path)
    place = table.schema.get_field_index("impressions_1d")
    pq.write_table(table.set_column(place, "impressions_1d", table["impressions_1d"].cast(pa.float64())), path)
    table = open_store(repo).get_historical_features(entity_rows([hours(2)]), [FEATURE]).to_arrow()
    assert table.schema.field("impressions_1d").type == pa.int64()


def test_values_that_do_not_fit_the_declared_type_are_named(repo: Path, write: Callable[..., Path]) -> None:
    path = write(user_row(5, usable=1))
    table = pq.read_table(path)
    place = table.schema.get_field_index("impressions_1d")
    pq.write_table(table.set_column(place, "impressions_1d", pa.array([0.5])), path)
    with pytest.raises(ValueError, match=r"impressions_1d must be int64 \(got double"):
        joined(repo, entity_rows([hours(2)]))


def test_files_outside_the_window_are_not_read_for_features(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=100), name="date=2024-03-05")
    stale = write(user_row(2, usable=1))
    pq.write_table(pq.read_table(stale).drop_columns(["impressions_1d"]), stale)
    assert joined(repo, entity_rows([hours(101)])) == [1]


def test_one_view_joined_twice_under_two_keys(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1), user_row(2, usable=1, user=2))
    view = feature_views(MANIFEST)["user_activity"]
    author = view.with_name("author").with_join_key_map({"user_id": "author_id"})
    service = FeatureService(name="two_keys", features=[view.with_name("reader"), author])
    store = open_store(repo)
    store.apply([service])
    rows = entity_rows([hours(2)]).assign(author_id=[2])
    table = store.get_historical_features(rows, service, full_feature_names=True).to_arrow()
    assert table["reader__impressions_1d"].to_pylist() == [1]
    assert table["author__impressions_1d"].to_pylist() == [2]


def test_entity_rows_may_be_a_query(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1))
    assert joined(repo, "SELECT 1 AS user_id, TIMESTAMPTZ '2024-03-01 02:00:00+00' AS event_timestamp") == [1]


def test_no_entity_rows_give_no_rows_with_the_declared_types(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1))
    table = open_store(repo).get_historical_features(entity_rows([]), [FEATURE]).to_arrow()
    assert table.num_rows == 0
    assert table.schema.field("impressions_1d").type == pa.int64()


def test_rows_written_later_are_left_out_when_asked(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1, written=1), user_row(2, usable=2, written=30), user_row(3, usable=1.5, written=None))
    rows = entity_rows([hours(3), hours(31)])
    assert joined(repo, rows) == [2, 2]
    assert joined(repo, rows, filter_by_created_timestamp=True) == [1, 2]


def test_mapped_columns_are_read_under_their_own_names(repo: Path) -> None:
    folder = repo / "data" / "offline" / "mapped"
    folder.mkdir(parents=True)
    stamp = pa.array([hours(1)], MOMENT)
    pq.write_table(pa.table({"uid": [1], "n": [4], "seen": stamp}), folder / "only.parquet")
    source = FileSource(
        path="data/offline/mapped/*.parquet", timestamp_field="seen", field_mapping={"uid": "user_id", "n": "count"}
    )
    fields = [Field(name="user_id", dtype=Int64), Field(name="count", dtype=Int64)]
    view = FeatureView(name="mapped", entities=[USER], schema=fields, source=source)
    store = open_store(repo)
    store.apply([view])
    assert joined(repo, entity_rows([hours(2)]), "mapped:count") == [4]
    store.materialize(hours(0), hours(3), feature_views=["mapped"])
    assert store.get_online_features(["mapped:count"], [{"user_id": 1}]).to_dict()["count"] == [4]


def test_on_demand_views_are_computed_from_the_joined_features(repo: Path, write: Callable[..., Path]) -> None:
    def doubled(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"twice": inputs["impressions_1d"] * 2})

    view = OnDemandFeatureView(
        name="doubled",
        sources=[feature_views(MANIFEST)["user_activity"]],
        schema=[Field(name="twice", dtype=Int64)],
        feature_transformation=None,
        udf=doubled,
        udf_string="doubled",
        mode="pandas",
    )
    write(user_row(4, usable=1))
    store = open_store(repo)
    store.apply([view])
    job = store.get_historical_features(entity_rows([hours(2)]), [FEATURE, "doubled:twice"])
    assert job.to_df()["twice"].tolist() == [8]


def test_saved_dataset_is_read_back(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1))
    store = open_store(repo)
    job = store.get_historical_features(entity_rows([hours(2), hours(0)]), [FEATURE])
    storage = SavedDatasetFileStorage(path="data/saved.parquet")
    store.create_saved_dataset(job, "saved", storage)
    assert (repo / "data" / "saved.parquet").is_file()
    assert sorted(store.get_saved_dataset("saved").to_df()["impressions_1d"].dropna()) == [1]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        store.create_saved_dataset(job, "again", storage)


def test_pull_latest_takes_the_newest_row_of_the_interval(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1), user_row(8, usable=1, user=2), name="a")
    write(user_row(2, usable=2, written=3), user_row(3, usable=2, written=4), name="b")
    write(user_row(4, usable=3), name="c")
    table = pulled(open_store(repo), latest=True, start=hours(1), end=hours(2))
    assert dict(zip(table["user_id"].to_pylist(), table["impressions_1d"].to_pylist(), strict=True)) == {1: 3, 2: 8}


def test_pull_all_takes_every_row_of_the_interval(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1), user_row(2, usable=2), user_row(2, usable=2), user_row(3, usable=3))
    table = pulled(open_store(repo), latest=False, start=hours(2), end=hours(3))
    assert table["impressions_1d"].to_pylist() == [2, 2, 3]


def pulled(store: FeatureStore, *, latest: bool, start: datetime, end: datetime) -> pa.Table:
    offline = store.provider.offline_store
    pull = offline.pull_latest_from_table_or_query if latest else offline.pull_all_from_table_or_query
    source = store.get_feature_view("user_activity").batch_source
    names = (["user_id"], ["impressions_1d"], "event_timestamp", "created_timestamp")
    return pull(store.config, source, *names, start, end).to_arrow()


def test_rows_written_through_feast_are_one_more_file(repo: Path, write: Callable[..., Path]) -> None:
    path = write(user_row(1, usable=1, written=1))
    added = pq.read_table(path).to_pandas().assign(impressions_1d=9, event_timestamp=hours(2))
    open_store(repo).write_to_offline_store("user_activity", added)
    assert joined(repo, entity_rows([hours(1), hours(2)])) == [1, 9]
    assert pq.read_table(path)["impressions_1d"].to_pylist() == [1]
    assert len(list(path.parent.iterdir())) == 2


def test_keys_that_are_no_whole_numbers_are_refused(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1))
    with pytest.raises(ValueError, match="user_id must hold whole numbers"):
        joined(repo, entity_rows([hours(2)]).assign(user_id=[0.5]))


def test_materialize_without_a_snapshot_names_the_view(repo: Path) -> None:
    with pytest.raises(MissingSnapshotsError, match="user_activity must have a snapshot under"):
        open_store(repo).materialize(hours(0), hours(1), feature_views=["user_activity"])


def test_limits_of_the_store_reach_duckdb(repo: Path, write: Callable[..., Path]) -> None:
    write(user_row(1, usable=1))
    path = repo / "feature_store.yaml"
    store_type = "  type: feature_repo.stores.offline.asof_store.AsofOfflineStore\n"
    path.write_text(path.read_text().replace(store_type, f"{store_type}  memory_limit: 1KB\n  threads: 1\n"))
    with pytest.raises(Exception, match=r"[Mm]emory"):
        joined(repo, entity_rows([hours(2)]))
