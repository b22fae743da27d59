"""Training frames through Feast, as Arrow."""

from pathlib import Path

import pyarrow as pa
import pytest
from feast import FeatureStore

from feature_repo.layout import open_store
from tests.feature_repo.repos import MOMENT, hours
from trainers.data.frames import point_in_time_frame


@pytest.fixture(scope="module")
def store(applied_repo: Path) -> FeatureStore:
    return open_store(applied_repo)


def impressions(moments: list[float]) -> pa.Table:
    return pa.table(
        {
            "impression_id": range(len(moments)),
            "user_id": [1, 2] * (len(moments) // 2),
            "pin_id": [10, 11] * (len(moments) // 2),
            "event_timestamp": pa.array([hours(moment) for moment in moments], MOMENT),
            "click": pa.array([1, None] * (len(moments) // 2), pa.int8()),
        }
    )


def test_frame_keeps_rows_and_labels_and_adds_full_names(store: FeatureStore) -> None:
    rows = impressions([30, 2, 0.5, 26])
    frame = point_in_time_frame(store, rows, "ranking__pin_ctr_v1")
    assert frame.select(rows.column_names).equals(rows)
    assert frame["user_activity__impressions_1d"].to_pylist() == [101, 2, None, 102]
    assert frame["pin_embedding_ctr_v1__embedding"].to_pylist() == [[10, 1, 0, 1], [11, 0, 0, 1], None, [11, 1, 0, 1]]
    assert not any(name.startswith("user_embedding") for name in frame.column_names)


def test_frame_of_one_entity_needs_one_key(store: FeatureStore) -> None:
    rows = impressions([30, 2]).drop_columns(["pin_id"])
    frame = point_in_time_frame(store, rows, "upstream_user")
    assert frame["user_history_before__pin_ids"].to_pylist() == [[11, 10], None]


def test_frame_is_the_same_in_chunks(store: FeatureStore) -> None:
    rows = impressions([30, 2, 0.5, 26])
    whole = point_in_time_frame(store, rows, "ranking__ctr_v1")
    assert point_in_time_frame(store, rows, "ranking__ctr_v1", chunk_rows=3).equals(whole)


def test_frame_takes_a_repo_folder(applied_repo: Path) -> None:
    assert point_in_time_frame(applied_repo, impressions([]), "ranking").num_rows == 0


def test_frame_refuses_rows_without_a_time(store: FeatureStore) -> None:
    with pytest.raises(ValueError, match="rows must have event_timestamp"):
        point_in_time_frame(store, impressions([30, 2]).drop_columns(["event_timestamp"]), "ranking")


def test_frame_refuses_naive_times(store: FeatureStore) -> None:
    rows = impressions([30, 2])
    naive = rows["event_timestamp"].cast(pa.timestamp("us"))
    with pytest.raises(ValueError, match="with a time zone"):
        point_in_time_frame(store, rows.set_column(3, "event_timestamp", naive), "ranking")


def test_frame_refuses_an_empty_chunk(store: FeatureStore) -> None:
    with pytest.raises(ValueError, match=r"at least 1 \(got 0\)"):
        point_in_time_frame(store, impressions([30, 2]), "ranking", chunk_rows=0)
