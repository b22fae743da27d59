"""How the event log lies on disk, is replaced and is read."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.tiny_log import NOW, TIME, at, ingest_tiny, stage, tiny_spec, tiny_tables
from trainers.data.event_log import EventLog, EventLogError, ingest
from trainers.data.ingest import recover


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_partitions_are_utc_dates_and_hold_the_declared_columns(tmp_path: Path) -> None:
    _, log = ingest_tiny(tmp_path, tiny_tables())
    files = sorted(str(path.relative_to(log.path)) for path in log.path.rglob("*.parquet"))
    assert files == [
        "conversions/date=2024-01-03/part-0.parquet",
        "conversions/date=2024-01-05/part-0.parquet",
        "impressions/date=2024-01-02/part-0.parquet",
        "impressions/date=2024-01-03/part-0.parquet",
        "impressions/date=2024-01-05/part-0.parquet",
        "pins.parquet",
        "users.parquet",
    ]
    schema = pq.read_schema(log.path / "impressions" / "date=2024-01-02" / "part-0.parquet")
    assert {name: schema.field(name).type for name in schema.names} == {
        "impression_id": pa.int64(),
        "user_id": pa.int64(),
        "pin_id": pa.int64(),
        "surface": pa.string(),
        "event_timestamp": TIME,
        "click": pa.int8(),
    }


def test_conversions_carry_the_keys_of_their_impression(tmp_path: Path) -> None:
    _, log = ingest_tiny(tmp_path, tiny_tables())
    assert log.conversions(at(1), at(30)).to_pylist() == [
        {
            "impression_id": 1,
            "user_id": 1,
            "pin_id": 10,
            "surface": "home",
            "event_timestamp": at(3, 12),
            "kind": "purchase",
            "value": 9.5,
        },
        {
            "impression_id": 4,
            "user_id": 3,
            "pin_id": 12,
            "surface": "home",
            "event_timestamp": at(5, 3),
            "kind": "purchase",
            "value": None,
        },
    ]


@pytest.mark.parametrize(
    ("from_", "until", "found"),
    [
        (at(1), at(30), [1, 2, 3, 4, 5, 6]),
        (at(2, 9), at(3, 2), [2, 3]),
        (at(3), at(4), [3, 4]),
        (at(4), at(5), []),
        (datetime.fromisoformat("2024-01-02T10:00:00+01:00"), at(3), [2]),
    ],
)
def test_period_is_closed_at_its_start_and_open_at_its_end(
    tmp_path: Path, from_: datetime, until: datetime, found: list[int]
) -> None:
    _, log = ingest_tiny(tmp_path, tiny_tables())
    assert log.impressions(from_, until)["impression_id"].to_pylist() == found


def test_period_without_conversions_has_their_columns(tmp_path: Path) -> None:
    tables = tiny_tables()
    del tables["conversions"]
    _, log = ingest_tiny(tmp_path, tables)
    empty = log.conversions(at(1), at(30))
    assert empty.num_rows == 0
    assert {"impression_id", "user_id", "pin_id", "surface", "event_timestamp", "kind", "value"} == set(
        empty.column_names
    )


def test_log_knows_its_spec_days_and_tables(tmp_path: Path) -> None:
    tables = tiny_tables()
    del tables["users"]
    _, log = ingest_tiny(tmp_path, tables)
    assert log.spec == tiny_spec()
    assert log.days() == [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 5)]
    assert log.days("conversions") == [date(2024, 1, 3), date(2024, 1, 5)]
    assert log.users_path is None
    assert log.pins_path == log.path / "pins.parquet"
    assert log.truth_path is None


def test_naive_period_is_refused(tmp_path: Path) -> None:
    _, log = ingest_tiny(tmp_path, tiny_tables())
    with pytest.raises(ValueError, match=r"a moment must have a time zone \(got 2024-01-01T00:00:00\)"):
        log.impressions(datetime(2024, 1, 1), at(3))


def test_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EventLogError, match=r"must have spec.json.*headwater ingest"):
        EventLog(tmp_path)


def test_histories_and_side_files_come_along(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["history_watched"] = {
        "user_id": [1, 9],
        "event_timestamp": pa.array([at(1), at(1)], TIME),
        "pin_ids": [[12, 10], [10]],
    }
    tables["truth"] = {"impression_id": [1], "true_pclick": [0.5]}
    report, log = ingest_tiny(tmp_path, tables, tiny_spec(histories=("watched",)))
    assert report.tables["history_watched"].reasons == {"unknown user_id": 1}
    history = log.history_path("watched")
    assert history is not None
    assert pq.read_table(history)["pin_ids"].to_pylist() == [[12, 10]]
    assert log.truth_path == log.path / "truth.parquet"


def test_second_ingestion_gives_the_same_bytes(tmp_path: Path) -> None:
    _, log = ingest_tiny(tmp_path, tiny_tables())
    first = content(log.path)
    _, again = ingest_tiny(tmp_path, tiny_tables())
    assert content(again.path) == first


def test_failed_ingestion_leaves_the_earlier_log_whole(tmp_path: Path) -> None:
    _, log = ingest_tiny(tmp_path, tiny_tables())
    before = content(log.path)
    tables = tiny_tables()
    tables["impressions"]["user_id"] = [-1] * 6
    with pytest.raises(EventLogError):
        ingest_tiny(tmp_path, tables)
    assert content(log.path) == before


def test_interrupted_ingestion_leaves_the_earlier_log_whole_and_no_rubbish(tmp_path: Path) -> None:
    _, log = ingest_tiny(tmp_path, tiny_tables())
    before = content(log.path)

    def interrupt(message: str, share: float) -> None:
        if share > 0.6:
            raise KeyboardInterrupt(message)

    with pytest.raises(KeyboardInterrupt):
        ingest(tiny_spec(), tmp_path / "staging", log.path, now=NOW, progress=interrupt)
    assert content(log.path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["event_log", "staging"]


def test_kill_between_the_two_renames_is_recovered_from(tmp_path: Path) -> None:
    _, log = ingest_tiny(tmp_path, tiny_tables())
    before = content(log.path)
    log.path.rename(tmp_path / ".event_log.earlier")
    recover(log.path)
    assert content(log.path) == before


def test_good_ingestion_removes_what_an_earlier_failure_left(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["user_id"] = [-1] * 6
    with pytest.raises(EventLogError):
        ingest_tiny(tmp_path, tables)
    assert (tmp_path / "event_log.rejected" / "report.json").exists()
    ingest_tiny(tmp_path, tiny_tables())
    assert not (tmp_path / "event_log.rejected").exists()


def test_event_on_the_last_microsecond_stays_on_its_date(tmp_path: Path) -> None:
    tables = tiny_tables()
    last = datetime(2024, 1, 5, 23, 59, 59, 999999, tzinfo=UTC)
    tables["impressions"]["event_timestamp"] = pa.array([at(2), at(3), at(3), at(3), at(5), last], TIME)
    _, log = ingest_tiny(tmp_path, tables)
    stored = pq.read_table(log.path / "impressions" / "date=2024-01-05" / "part-0.parquet")
    assert stored["event_timestamp"].to_pylist() == [at(5), last]


def test_progress_ends_at_one_and_never_falls(tmp_path: Path) -> None:
    shares: list[float] = []
    staging = stage(tmp_path / "staging", tiny_tables())
    ingest(tiny_spec(), staging, tmp_path / "log", now=NOW, progress=lambda _, share: shares.append(share))
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
