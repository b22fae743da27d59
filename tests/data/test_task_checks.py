"""Tasks that cannot be learned or judged are refused before anything is trained on them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.data.tiny_log import TIME, at, ingest_tiny, tiny_spec
from trainers.data.checks import EventLogError
from trainers.data.dataset import Conversion, Task, Window
from trainers.data.event_log import EventLog
from trainers.data.task_checks import check_tasks, judged_tasks

DAYS = range(2, 20)
WINDOW = Window(features_from=at(1), train_from=at(2), test_from=at(18), until=at(20))
Row = dict[str, Any]


def rows() -> list[Row]:
    """Two clicked impressions and one that is not, each day; the second click leads to a purchase at once."""
    return [
        {"day": day, "user": 10 * day + nth, "pin": 7, "click": int(nth > 0), "bought": nth == 2}
        for day in DAYS
        for nth in range(3)
    ]


def ingested(folder: Path, found: list[Row], **changes: Any) -> EventLog:
    times = pa.array([at(row["day"], 1) for row in found], TIME)
    bought = [place for place, row in enumerate(found) if row["bought"]]
    tables: dict[str, dict[str, Any]] = {
        "impressions": {
            "impression_id": list(range(len(found))),
            "user_id": [row["user"] for row in found],
            "pin_id": [row["pin"] for row in found],
            "surface": ["home"] * len(found),
            "event_timestamp": times,
            "click": pa.array([row["click"] for row in found], pa.int8()),
        },
        "conversions": {
            "impression_id": bought,
            "event_timestamp": pa.array([at(found[place]["day"], 2) for place in bought], TIME),
            "kind": ["purchase"] * len(bought),
        },
    }
    declared: dict[str, Any] = {"window": WINDOW, "user_attributes": (), "pin_attributes": ()}
    return ingest_tiny(folder, tables, tiny_spec(**(declared | changes)))[1]


def during(first: int, last: int, **values: Any) -> list[Row]:
    """The rows with columns set to one value from one day to another."""
    return [row | values if first <= row["day"] <= last else row for row in rows()]


def test_log_with_both_classes_everywhere_passes(tmp_path: Path) -> None:
    log = ingested(tmp_path, rows())
    check_tasks(log)
    assert judged_tasks(log.spec) == {"ctr_task": "click", "cvr_task": "purchase"}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            during(2, 15, click=1),
            r"task click \(ctr_task\) .* in the train days from 2024-01-02 until 2024-01-16 "
            r"\(got 42 positives and 0 negatives\); move the dataset's window, or declare another ctr_task$",
        ),
        (during(16, 17, click=0), r"task click .* validation days .* \(got 0 positives and 6 negatives\)"),
        (during(18, 19, click=0), r"task click .* in the test days from 2024-01-18 until 2024-01-20 \(got 0 positives"),
        (
            during(2, 13, bought=False),
            r"task purchase \(cvr_task\) .* train days .* until 2024-01-14 \(got 0 positives",
        ),
        (during(14, 15, bought=True), r"task purchase .* validation days .* \(got 4 positives and 0 negatives\)"),
        (
            during(18, 19, bought=False),
            r"task purchase .* test days .* \(got 0 positives and 4 negatives\); .* another cvr_task or none",
        ),
        (during(18, 19, user=21), r"first click on a Pin in the test days .* \(got 0\); .*declare `repeats: true`"),
    ],
    ids=["ctr train", "ctr validation", "ctr test", "cvr train", "cvr validation", "cvr test", "nothing new"],
)
def test_task_of_one_class_is_refused_with_its_days_and_counts(tmp_path: Path, found: list[Row], message: str) -> None:
    with pytest.raises(EventLogError, match=message):
        check_tasks(ingested(tmp_path, found))


def test_engagements_with_known_pins_do_where_people_come_back(tmp_path: Path) -> None:
    check_tasks(log := ingested(tmp_path, during(18, 19, user=21), repeats=True))
    assert log.spec.repeats


def test_purchases_after_the_test_days_count_for_the_test(tmp_path: Path) -> None:
    log = ingested(tmp_path, rows())
    assert log.class_counts("purchase", at(18), at(20), at(22)) == (2, 2)
    assert log.class_counts("purchase", at(18), at(20), at(20)) == (0, 2)


def test_window_that_leaves_no_day_with_final_labels_is_refused(tmp_path: Path) -> None:
    window = Window(features_from=at(1), train_from=at(15), test_from=at(18), until=at(20))
    message = r"task purchase \(cvr_task\) must have at least 2 training days .* trains from 2024-01-15.* waits 2 days"
    with pytest.raises(EventLogError, match=message):
        check_tasks(ingested(tmp_path, rows(), window=window))


@pytest.mark.parametrize(("days", "warned"), [(1, False), (2, True)])
def test_log_that_ends_before_labels_are_final_is_warned_about(tmp_path: Path, days: int, warned: bool) -> None:
    conversions = (Conversion(kind="purchase", attribution_days=days),)
    late = [*rows(), {"day": 20, "user": 1, "pin": 7, "click": 0, "bought": False}]
    log = ingested(tmp_path, late, conversions=conversions)
    expected = (
        "labels of task purchase are final only in a log that reaches 2024-01-22, 2 days after window.until (its last "
        "event is of 2024-01-20): what converts later counts as a negative of the test days; add those days or end the "
        "window earlier"
    )
    assert log.report.warnings == ((expected,) if warned else ())
    assert log.spec.window.until + timedelta(days=days) == at(20 + days)


def test_retrieval_needs_a_ctr_label_known_with_the_impression() -> None:
    tasks = (Task(name="click", label="purchase", domain="engagement"),)
    with pytest.raises(ValueError, match=r"label of the ctr_task, .* must be one of click \(got 'purchase'\)"):
        tiny_spec(tasks=tasks, cvr_task=None)
