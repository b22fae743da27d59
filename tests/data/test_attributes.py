"""Attribute and history views from the event log's entity tables."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contract import AttributeField, RepoManifest
from trainers.data.attributes import write_attributes

FIRST, SECOND, WRITTEN = (datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3))
MOMENT = pa.timestamp("us", tz="UTC")

MANIFEST = RepoManifest(
    dataset="tiny",
    labels=("click",),
    conversions=(),
    windows_days=(1,),
    sequence_length=1,
    user_attributes=(
        AttributeField(name="age_range", kind="categorical", type="string"),
        AttributeField(name="num_follows", kind="dense", type="float"),
    ),
    pin_attributes=(
        AttributeField(name="author", kind="categorical", type="int64"),
        AttributeField(name="tags", kind="multi_valued", type="int64"),
        AttributeField(name="words", kind="multi_valued", type="string"),
        AttributeField(name="image", kind="vector", type="float", dim=2),
    ),
    histories=("watched",),
)


@pytest.fixture
def event_log(tmp_path: Path) -> Path:
    folder = tmp_path / "event_log"
    folder.mkdir()
    users = {
        "user_id": [2, 1, 1],
        "event_timestamp": pa.array([FIRST, SECOND, FIRST], MOMENT),
        "age_range": ["18-24", "25-30", None],
        "num_follows": pa.array([3, None, 1], pa.int32()),
        "undeclared": [0, 0, 0],
    }
    pins = {
        "pin_id": [10],
        "event_timestamp": pa.array([FIRST], MOMENT),
        "author": pa.array([7], pa.int32()),
        "tags": [[3, 1]],
        "words": [["red", "shoe"]],
        "image": pa.array([[0.5, -1.0]], pa.list_(pa.float64())),
    }
    history = {"user_id": [5], "event_timestamp": pa.array([FIRST], MOMENT), "pin_ids": [[9, 8]]}
    for name, columns in (("users", users), ("pins", pins), ("history_watched", history)):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def _read(path: Path) -> pa.Table:
    return pq.ParquetFile(path).read()


def test_attributes_hold_every_version_of_a_row_sorted_by_key_and_time(event_log: Path, tmp_path: Path) -> None:
    written = write_attributes(event_log, tmp_path / "offline", MANIFEST, created_timestamp=WRITTEN)

    common = {"created_timestamp": WRITTEN}
    assert _read(written["user_attributes"]).to_pylist() == [
        {"user_id": 1, "event_timestamp": FIRST, **common, "age_range": None, "num_follows": 1.0},
        {"user_id": 1, "event_timestamp": SECOND, **common, "age_range": "25-30", "num_follows": None},
        {"user_id": 2, "event_timestamp": FIRST, **common, "age_range": "18-24", "num_follows": 3.0},
    ]


def test_attributes_have_the_declared_types(event_log: Path, tmp_path: Path) -> None:
    written = write_attributes(event_log, tmp_path / "offline", MANIFEST, created_timestamp=WRITTEN)

    users, pins = _read(written["user_attributes"]).schema, _read(written["pin_attributes"]).schema
    assert users.field("num_follows").type == pa.float64()
    assert users.field("event_timestamp").type == users.field("created_timestamp").type == MOMENT
    assert pins.field("author").type == pa.int64()
    assert pins.field("tags").type.value_type == pa.int64()
    assert pins.field("words").type.value_type == pa.string()
    assert pins.field("image").type.value_type == pa.float32()


def test_history_keeps_the_order_of_its_pins(event_log: Path, tmp_path: Path) -> None:
    written = write_attributes(event_log, tmp_path / "offline", MANIFEST, created_timestamp=WRITTEN)

    assert _read(written["user_history_watched"]).to_pylist() == [
        {"user_id": 5, "event_timestamp": FIRST, "created_timestamp": WRITTEN, "pin_ids": [9, 8]}
    ]


def test_attributes_replace_the_file_of_an_earlier_call(event_log: Path, tmp_path: Path) -> None:
    for _ in range(2):
        written = write_attributes(event_log, tmp_path / "offline", MANIFEST, created_timestamp=WRITTEN)

    assert list(written["pin_attributes"].parent.iterdir()) == [written["pin_attributes"]]


def test_attributes_skip_an_entity_that_declares_none(event_log: Path, tmp_path: Path) -> None:
    bare = RepoManifest(
        dataset="tiny",
        labels=("click",),
        conversions=(),
        windows_days=(1,),
        sequence_length=1,
        user_attributes=(),
        pin_attributes=MANIFEST.pin_attributes,
    )

    written = write_attributes(event_log, tmp_path / "offline", bare, created_timestamp=WRITTEN)

    assert list(written) == ["pin_attributes"]


def test_attributes_fail_and_keep_the_old_file_when_a_column_is_absent(event_log: Path, tmp_path: Path) -> None:
    written = write_attributes(event_log, tmp_path / "offline", MANIFEST, created_timestamp=WRITTEN)
    before = _read(written["user_attributes"])
    pq.write_table(pq.read_table(event_log / "users.parquet").drop(["age_range"]), event_log / "users.parquet")

    with pytest.raises(ValueError, match="age_range"):
        write_attributes(event_log, tmp_path / "offline", MANIFEST, created_timestamp=WRITTEN)
    assert _read(written["user_attributes"]).equals(before)


def test_attributes_fail_when_the_log_has_no_such_table(event_log: Path, tmp_path: Path) -> None:
    (event_log / "history_watched.parquet").unlink()

    with pytest.raises(FileNotFoundError, match=r"history_watched\.parquet"):
        write_attributes(event_log, tmp_path / "offline", MANIFEST, created_timestamp=WRITTEN)
