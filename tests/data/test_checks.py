"""What ingestion refuses, what it sets aside and why."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.tiny_log import NOW, TIME, at, ingest_tiny, quarantine, stage, tiny_spec, tiny_tables
from trainers.data.event_log import EventLogError, ingest

IMPRESSION_TIMES = [at(2, 1), at(2, 9), at(3, 1), at(3, 2), at(5, 3), at(5, 4)]


def times(*changed: tuple[int, datetime | None]) -> pa.Array:
    values: list[datetime | None] = list(IMPRESSION_TIMES)
    for place, moment in changed:
        values[place] = moment
    return pa.array(values, TIME)


@pytest.mark.parametrize(
    ("table", "column", "values", "reasons"),
    [
        ("impressions", "impression_id", [1, 2, 3, 4, 5, 5], {"duplicate impression_id": 1}),
        ("impressions", "impression_id", [1, 2, 3, 4, 5, -6], {"negative impression_id": 1}),
        ("impressions", "user_id", [1, 2, None, 3, 2, 1], {"null user_id": 1}),
        ("impressions", "user_id", [1, 2, 1, 3, 2, 99], {"unknown user_id": 1}),
        ("impressions", "user_id", ["1", "2", "1", "3", "2", "x1"], {"wrong type: user_id": 1}),
        ("impressions", "user_id", ["1", "2", "1", "3", "2", "1.5"], {"wrong type: user_id": 1}),
        ("impressions", "user_id", [1.0, 2.0, 1.0, 3.0, 2.0, 1.5], {"wrong type: user_id": 1}),
        ("impressions", "pin_id", [10, 10, 11, 12, 99, 99], {"unknown pin_id": 2}),
        ("impressions", "surface", ["a", None, "a", " ", "a", "a"], {"null surface": 1, "empty surface": 1}),
        ("impressions", "click", [1, 0, 1, 1, 1, 2], {"label click not 0, 1 or null": 1}),
        ("impressions", "click", ["1", "0", "1", "1", "1", "no"], {"label click not 0, 1 or null": 1}),
        ("impressions", "event_timestamp", times((5, datetime(2024, 2, 2, tzinfo=UTC))), {"future event_timestamp": 1}),
        ("impressions", "event_timestamp", times((5, None)), {"null event_timestamp": 1}),
        ("impressions", "propensity", [0.5, 1.0, 0.0, 1.5, None, 0.1], {"propensity outside (0, 1]": 2}),
        ("impressions", "position", [0, 1, -1, None, 3, 4], {"negative position": 1}),
        ("users", "age", [30.0, float("inf"), 1.0], {"age not finite": 1}),
        ("users", "user_id", [1, 2, 2], {"duplicate user_id and event_timestamp": 1}),
        ("pins", "content", [[0.0, 1.0], [1.0], None], {"content not of width 2": 1}),
        ("pins", "content", [[0.0, 1.0], [1.0, float("nan")], None], {"content not finite": 1}),
        ("pins", "topics", [[1], [1, None], None], {"null or unreadable element in topics": 1}),
        ("conversions", "impression_id", [1, 77], {"conversion without its impression": 1}),
        ("conversions", "event_timestamp", pa.array([at(2), at(5)], TIME), {"conversion before its impression": 1}),
        ("conversions", "kind", ["purchase", "refund"], {"undeclared kind": 1}),
    ],
)
def test_bad_rows_are_quarantined_with_their_reason(
    tmp_path: Path, table: str, column: str, values: Any, reasons: dict[str, int]
) -> None:
    tables = tiny_tables()
    tables[table][column] = values
    report, log = ingest_tiny(tmp_path, tables, tiny_spec(quarantine_share=0.5))
    assert report.tables[table].reasons == reasons
    assert report.tables[table].kept == report.tables[table].read - sum(reasons.values())
    assert sorted(quarantine(log, table)["reason"]) == sorted(
        reason for reason, count in reasons.items() for _ in range(count)
    )


def test_quarantine_keeps_the_bad_value_and_its_row(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["user_id"] = ["1", "2", "1", "x9", "2", "1"]
    _, log = ingest_tiny(tmp_path, tables)
    rows = quarantine(log, "impressions")
    assert rows["row"] == [3]
    assert rows["user_id"] == ["x9"]
    assert rows["impression_id"] == ["4"]


def test_duplicates_keep_the_first_row(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["impression_id"] = [1, 2, 3, 1, 5, 6]
    _, log = ingest_tiny(tmp_path, tables, tiny_spec(quarantine_share=0.6))
    kept = log.impressions(at(1), at(30))
    assert kept["impression_id"].to_pylist() == [1, 2, 3, 5, 6]
    assert kept["event_timestamp"].to_pylist()[0] == at(2, 1)


def test_conversion_of_a_quarantined_impression_is_quarantined_too(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["surface"] = ["home", "home", "home", None, "home", "home"]
    report, _ = ingest_tiny(tmp_path, tables)
    assert report.tables["conversions"].reasons == {"conversion without its impression": 1}


def test_conversions_of_impressions_outside_the_log_are_no_faults(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["conversions"] = {
        "impression_id": [1, 2, 77, 78, None],
        "event_timestamp": pa.array([at(4), at(4), at(2, 2), at(20), at(4)], TIME),
        "kind": ["purchase"] * 5,
    }
    report, _ = ingest_tiny(tmp_path, tables, tiny_spec(quarantine_share=0.0))
    assert report.tables["conversions"].reasons == {
        "conversion of an impression outside the log": 2,
        "conversion of no impression": 1,
    }


def test_conversions_that_hardly_fit_the_log_are_faults(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["conversions"] = {
        "impression_id": [77, 78],
        "event_timestamp": pa.array([at(2, 2), at(30)], TIME),
        "kind": ["purchase"] * 2,
    }
    with pytest.raises(EventLogError, match="outside the log 2 such as '77'"):
        ingest_tiny(tmp_path, tables)


def test_exact_duplicate_of_a_conversion_is_quarantined(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["conversions"] = {
        "impression_id": [1, 1, 1],
        "event_timestamp": pa.array([at(3), at(3), at(4)], TIME),
        "kind": ["purchase"] * 3,
    }
    report, _ = ingest_tiny(tmp_path, tables)
    assert report.tables["conversions"].reasons == {"duplicate conversion": 1}


def test_labels_and_numbers_may_be_missing(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["click"] = [1.0, 0.0, None, float("nan"), 1.0, 0.0]
    report, log = ingest_tiny(tmp_path, tables)
    assert report.tables["impressions"].kept == 6
    assert log.impressions(at(1), at(30))["click"].to_pylist() == [1, 0, None, None, 1, 0]
    assert pq.read_table(log.path / "users.parquet")["age"].to_pylist() == [30.0, None, None]


def test_iso_texts_with_an_offset_are_read_and_naive_ones_set_aside(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["users"]["event_timestamp"] = ["2024-01-01T02:00:00+02:00", "2024-01-01 00:00:00", "2024-01-01"]
    report, log = ingest_tiny(tmp_path, tables, tiny_spec(quarantine_share=0.9))
    assert report.tables["users"].reasons == {"naive event_timestamp": 2}
    assert pq.read_table(log.path / "users.parquet")["event_timestamp"].to_pylist() == [at(1)]


def test_nanosecond_timestamps_are_read(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["event_timestamp"] = times().cast(pa.timestamp("ns", tz="UTC"))
    _, log = ingest_tiny(tmp_path, tables)
    assert log.impressions(at(1), at(30))["event_timestamp"].to_pylist() == IMPRESSION_TIMES


@pytest.mark.parametrize(
    ("table", "column", "values", "message"),
    [
        ("impressions", "click", None, "table impressions must have column click \\(got impression_id, .*\\); add it"),
        ("impressions", "user_id", ["a", "b", "c", "d", "e", "f"], "impressions.user_id must hold BIGINT.*'a'.*keys"),
        ("impressions", "event_timestamp", times().cast(pa.timestamp("us")), "must say its time zone.*naive TIMESTAMP"),
        ("impressions", "event_timestamp", ["2024-01-02 01:00:00"] * 6, "say their time zone.*2024-01-02 01:00:00"),
        ("impressions", "event_timestamp", [1704157200] * 6, "must be a timestamp with a time zone \\(got BIGINT\\)"),
        ("pins", "topics", ["1|2", "3", ""], "pins.topics must hold BIGINT\\[\\] values"),
    ],
)
def test_unusable_tables_are_refused(tmp_path: Path, table: str, column: str, values: Any, message: str) -> None:
    tables = tiny_tables()
    tables[table][column] = values
    if values is None:
        del tables[table][column]
    with pytest.raises(EventLogError, match=message):
        ingest_tiny(tmp_path, tables)


@pytest.mark.parametrize("staged", [{}, {"impressions": {k: v[:0] for k, v in tiny_tables()["impressions"].items()}}])
def test_empty_log_is_refused(tmp_path: Path, staged: dict[str, Any]) -> None:
    with pytest.raises(EventLogError, match=r"got no .*impressions.parquet|at least one impression \(got 0\)"):
        ingest(tiny_spec(), stage(tmp_path / "staging", staged), tmp_path / "event_log", now=NOW)


def test_too_many_bad_rows_fail_and_leave_their_quarantine(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["surface"] = ["home", None, None, "home", "home", "home"]
    message = (
        "table impressions must stay at or below a share of 0.2 \\(got 2 of 6 = 0.3333: null surface 2\\).*rejected"
    )
    with pytest.raises(EventLogError, match=message):
        ingest_tiny(tmp_path, tables, tiny_spec(quarantine_share=0.2))
    kept = pq.read_table(tmp_path / "event_log.rejected" / "quarantine" / "impressions.parquet")
    assert kept["impression_id"].to_pylist() == ["2", "3"]
    assert not (tmp_path / "event_log").exists()


def test_report_counts_rates_surfaces_and_empty_days(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["extra"] = list(range(6))
    report, log = ingest_tiny(tmp_path, tables)
    assert report.days == {"2024-01-02": 2, "2024-01-03": 2, "2024-01-04": 0, "2024-01-05": 2}
    assert report.days_without_impressions == ("2024-01-04",)
    assert report.surfaces == {"home": 4, "search": 2}
    assert report.label_rates == {"click": 4 / 6, "purchase": 2 / 6}
    assert report.warnings[:2] == (
        "days without impressions: 2024-01-04",
        "undeclared columns of impressions were left out: extra",
    )
    assert log.report == report


def test_label_of_one_class_is_warned_about(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["click"] = pa.array([1] * 6, pa.int8())
    report, _ = ingest_tiny(tmp_path, tables)
    assert "label click has one class only (rate 1.0)" in report.warnings


def test_now_must_have_a_time_zone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="now must have a time zone"):
        ingest(tiny_spec(), tmp_path, tmp_path / "event_log", now=datetime(2024, 2, 1))
