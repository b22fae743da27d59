"""Labels as known at a cut-off, worked by hand.

Clicks on impressions 1 (2 Jan 01:00), 3 (3 Jan 01:00), 4 (3 Jan 02:00) and 5 (5 Jan 03:00) may lead to a purchase
within two days. Impression 1 converts on 3 Jan 12:00; impression 4 on 5 Jan 03:00, an hour too late.
"""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.tiny_log import TIME, at, ingest_tiny, tiny_tables
from trainers.data.event_log import EventLog


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return ingest_tiny(tmp_path, tiny_tables())[1]


@pytest.mark.parametrize(
    ("known_by", "known"),
    [
        (at(3, 11), {}),
        (at(3, 12), {1: 1}),
        (at(5, 0), {1: 1}),
        (at(5, 1), {1: 1, 3: 0}),
        (at(5, 2), {1: 1, 3: 0, 4: 0}),
        (at(7, 2), {1: 1, 3: 0, 4: 0}),
        (at(7, 3), {1: 1, 3: 0, 4: 0, 5: 0}),
    ],
)
def test_conversion_label_appears_once_it_is_known(log: EventLog, known_by: datetime, known: dict[int, int]) -> None:
    found = log.labelled("purchase", at(1), at(30), known_by)
    assert dict(zip(found["impression_id"].to_pylist(), found["label"].to_pylist(), strict=True)) == known


@pytest.mark.parametrize(("known_by", "known"), [(at(3, 12), {}), (at(4, 1), {1: 1}), (at(5, 2), {1: 1, 3: 0, 4: 0})])
def test_matured_label_waits_for_the_end_of_its_window(
    log: EventLog, known_by: datetime, known: dict[int, int]
) -> None:
    found = log.labelled("purchase", at(1), at(30), known_by, matured=True)
    assert dict(zip(found["impression_id"].to_pylist(), found["label"].to_pylist(), strict=True)) == known


def test_positive_resolves_when_it_happens_and_negative_when_the_window_closes(log: EventLog) -> None:
    found = log.labelled("purchase", at(1), at(30), at(30))
    assert found["resolved_at"].to_pylist() == [at(3, 12), at(5, 1), at(5, 2), at(7, 3)]


def test_label_known_with_the_impression_resolves_at_once(log: EventLog) -> None:
    found = log.labelled("click", at(1), at(30), at(3, 1))
    assert found["impression_id"].to_pylist() == [1, 2, 3]
    assert found["resolved_at"].to_pylist() == found["event_timestamp"].to_pylist()


def test_conversion_at_the_very_end_of_the_window_counts(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["conversions"]["event_timestamp"] = pa.array([at(4, 1), at(5, 3)], TIME)
    _, log = ingest_tiny(tmp_path, tables)
    assert log.labelled("purchase", at(2), at(3), at(4, 1))["label"].to_pylist() == [1]


def test_first_of_two_conversions_decides(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["conversions"] = {
        "impression_id": [1, 1],
        "event_timestamp": pa.array([at(3), at(2, 5)], TIME),
        "kind": ["purchase", "purchase"],
    }
    _, log = ingest_tiny(tmp_path, tables)
    assert log.labelled("purchase", at(2), at(3), at(30))["resolved_at"].to_pylist() == [at(2, 5)]


def test_conversion_without_its_given_label_is_undefined(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["conversions"]["impression_id"] = [2, 4]
    _, log = ingest_tiny(tmp_path, tables)
    assert log.labelled("purchase", at(2), at(3), at(30))["impression_id"].to_pylist() == [1]


def test_missing_labels_are_left_out(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["click"] = pa.array([1, None, None, 1, 1, 0], pa.int8())
    _, log = ingest_tiny(tmp_path, tables)
    assert log.labelled("click", at(1), at(30), at(30))["impression_id"].to_pylist() == [1, 4, 5, 6]


def test_task_labels_keep_every_impression_and_null_what_is_not_known(log: EventLog) -> None:
    frame = log.task_labels(at(1), at(30), known_by=at(5, 1))
    assert frame["impression_id"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert frame["click"].to_pylist() == [1, 0, 1, 1, None, None]
    assert frame["purchase"].to_pylist() == [1, None, 0, None, None, None]
    assert frame["resolved_at_purchase"].to_pylist() == [at(3, 12), None, at(5, 1), None, None, None]
    assert frame.schema.field("purchase").type == pa.int8()


def test_task_labels_of_simultaneous_impressions_come_by_id(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["impression_id"] = [6, 5, 4, 3, 2, 1]
    tables["impressions"]["event_timestamp"] = pa.array([at(2)] * 6, TIME)
    del tables["conversions"]
    _, log = ingest_tiny(tmp_path, tables)
    assert log.task_labels(at(1), at(30), at(30))["impression_id"].to_pylist() == [1, 2, 3, 4, 5, 6]


def test_unknown_task_is_refused(log: EventLog) -> None:
    with pytest.raises(ValueError, match=r"task must be one of click, purchase \(got 'like'\)"):
        log.labelled("like", at(1), at(30), at(30))


HOURS = st.integers(min_value=0, max_value=120)


@settings(max_examples=15, deadline=None)
@given(
    shown=st.lists(HOURS, min_size=6, max_size=6),
    clicks=st.lists(st.sampled_from([0, 1, None]), min_size=6, max_size=6),
    waits=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 60)), min_size=1, max_size=8, unique=True),
    cutoff=HOURS,
)
def test_labels_agree_with_a_reading_of_their_definition(
    shown: list[int], clicks: list[int | None], waits: list[tuple[int, int]], cutoff: int
) -> None:
    tables = tiny_tables()
    moments = [at(2) + timedelta(hours=hour) for hour in shown]
    tables["impressions"] |= {"event_timestamp": pa.array(moments, TIME), "click": pa.array(clicks, pa.int8())}
    tables["conversions"] = {
        "impression_id": [number for number, _ in waits],
        "event_timestamp": pa.array([moments[number - 1] + timedelta(hours=wait) for number, wait in waits], TIME),
        "kind": ["purchase"] * len(waits),
    }
    known_by = at(2) + timedelta(hours=cutoff)
    with tempfile.TemporaryDirectory() as folder:
        found = ingest_tiny(Path(folder), tables)[1].task_labels(at(1), at(30), known_by)
    labels = dict(zip(found["impression_id"].to_pylist(), found["purchase"].to_pylist(), strict=True))
    for number, (moment, click) in enumerate(zip(moments, clicks, strict=True), start=1):
        first = min((wait for of, wait in waits if of == number and wait <= 48), default=None)
        resolved_at = moment + timedelta(hours=48 if first is None else first)
        expected = int(first is not None) if click == 1 and resolved_at <= known_by else None
        assert labels[number] == expected
