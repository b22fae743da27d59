"""Online reads and their three answers, on SQLite and on a Redis-compatible server."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from feast import FeatureStore

from feature_repo.contract import MISSING, OUTSIDE_MAX_AGE, PRESENT
from feature_repo.stores.online.status import OnlineReader, read_online
from tests.feature_repo.repos import hours
from trainers.data.frames import point_in_time_frame

NEWEST_HOUR = 25
"""When the newest rows of `write_all` became usable."""
MAX_AGE = timedelta(hours=48)
STORES = ["sqlite_store", "redis_store"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> FeatureStore:
    found: FeatureStore = request.getfixturevalue(request.param)
    return found


def test_read_hands_out_the_newest_values_in_the_order_of_the_keys(store: FeatureStore) -> None:
    read = read_online(store, "ranking__ctr_v1", "pin", [11, 7, 10, 11], hours(26))
    assert read.features["pin_activity__impressions_1d"].to_pylist() == [111, None, 110, 111]
    vectors = read.features["pin_embedding_ctr_v1__embedding"]
    assert vectors.type == pa.list_(pa.float32())
    assert vectors.to_pylist() == [[11, 1, 0, 1], None, [10, 1, 0, 1], [11, 1, 0, 1]]
    assert read.features["pin_attributes__topic"].to_pylist() == [None, None, "food", None]
    assert read.features["pin_attributes__quality"].to_pylist() == [None, None, 0.5, None]
    assert read.features["pin_embedding_ctr_v1__data_cutoff"].to_pylist() == [hours(24), None, hours(24), hours(24)]


def test_read_has_the_views_of_the_entity_alone(store: FeatureStore) -> None:
    read = read_online(store, "ranking__user_ctr_v1", "user", [1], hours(26))
    assert list(read.statuses) == ["user_activity", "user_embedding_ctr_v1"]
    assert {name.split("__")[0] for name in read.features.column_names} == set(read.statuses)


@pytest.mark.parametrize(
    ("now", "status"),
    [
        (hours(NEWEST_HOUR) + MAX_AGE, PRESENT),
        (hours(NEWEST_HOUR) + MAX_AGE + timedelta(microseconds=1), OUTSIDE_MAX_AGE),
        (hours(NEWEST_HOUR) - timedelta(microseconds=1), MISSING),
    ],
)
def test_statuses_turn_at_the_edges_of_the_ttl(store: FeatureStore, now: datetime, status: str) -> None:
    read = read_online(store, "ranking__ctr_v1", "user", [1, 404], now)
    assert read.status("user_embedding_ctr_v1") == [status, MISSING]
    expected = [[1, 1, 0, 1], None] if status == PRESENT else [None, None]
    assert read.features["user_embedding_ctr_v1__embedding"].to_pylist() == expected


def test_event_timestamp_outlives_the_value(store: FeatureStore) -> None:
    read = read_online(store, "ranking", "user", [1, 404], hours(1000))
    assert read.event_timestamps["user_activity"].to_pylist() == [hours(NEWEST_HOUR), None]


def test_views_without_a_ttl_never_age(store: FeatureStore) -> None:
    read = read_online(store, "ranking", "pin", [10, 404], hours(100_000))
    assert read.status("pin_attributes") == [PRESENT, MISSING]
    assert read.status("pin_activity") == [OUTSIDE_MAX_AGE, MISSING]


@pytest.mark.parametrize("hour", [26, 73, 74])
def test_online_and_offline_answer_the_same(store: FeatureStore, hour: int) -> None:
    rows = {"user_id": [1, 2, 404], "pin_id": [10, 11, 404], "event_timestamp": pa.array([hours(hour)] * 3)}
    frame = point_in_time_frame(store, pa.table(rows), "ranking__ctr_v1")
    for entity in ("user", "pin"):
        read = read_online(store, "ranking__ctr_v1", entity, rows[f"{entity}_id"], hours(hour))
        for name in read.features.column_names:
            assert read.features[name].to_pylist() == frame[name].to_pylist(), name
            assert read.features.schema.field(name).type == frame.schema.field(name).type, name


def test_no_keys_give_no_rows(store: FeatureStore) -> None:
    read = read_online(store, "ranking", "user", [], hours(26))
    assert read.features.num_rows == 0
    assert read.status("user_activity") == []


def test_reader_refuses_a_naive_now(sqlite_store: FeatureStore) -> None:
    with pytest.raises(ValueError, match="must have a time zone"):
        read_online(sqlite_store, "ranking", "user", [1], datetime(2024, 3, 1))


def test_reader_refuses_a_service_without_views_of_the_entity(sqlite_store: FeatureStore) -> None:
    with pytest.raises(ValueError, match=r"upstream_pin must have a view of user"):
        OnlineReader(sqlite_store, "upstream_pin", "user")


STOCK_CLIENT = """
import json, sys
from feast import FeatureStore
store = FeatureStore(repo_path=sys.argv[1])
answer = store.get_online_features(
    store.get_feature_service("ranking__ctr_v1"), [{"user_id": 2, "pin_id": 10}], full_feature_names=True
).to_dict()
print(json.dumps({name: answer[name] for name in sys.argv[2:]}))
"""


ANSWER = {
    "user_activity__impressions_1d": [102],
    "pin_attributes__topic": ["food"],
    "user_embedding_ctr_v1__embedding": [[2.0, 1.0, 0.0, 1.0]],
}


@pytest.mark.slow
@pytest.mark.usefixtures("redis_store")
def test_stock_client_in_another_process_reads_what_was_written(redis_repo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", STOCK_CLIENT, str(redis_repo), *ANSWER]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout.strip().splitlines()[-1]) == ANSWER
