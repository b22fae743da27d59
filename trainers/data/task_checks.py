"""Whether the tasks that models are judged on can be learned and judged at all, asked before anything is trained."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from trainers.data.checks import EventLogError
from trainers.data.connection import quote
from trainers.data.dataset import DatasetSpec
from trainers.data.event_log import EventLog
from trainers.data.task_days import longest_attribution_days, task_days

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def check_tasks(log: EventLog) -> None:
    """Refuse a log on which a ranker or the retrieval would fail after long training.

    Raises:
        EventLogError: A judged task has one class only in its training, validation or test days, its attribution
            window leaves no training days, or nobody engages with a new Pin in the test days.
    """
    for key, task in judged_tasks(log.spec).items():
        _check_length(log.spec, key, task)
        for part, (start, end) in task_days(log.spec, task).parts().items():
            _check_classes(log, key, task, part, start, end)
    _check_new_engagement(log)


def judged_tasks(spec: DatasetSpec) -> dict[str, str]:
    """Tasks that rankers are judged on, by the key of the declaration that names them."""
    named = {"ctr_task": spec.ctr_task, "cvr_task": spec.cvr_task}
    return {key: task for key, task in named.items() if task is not None}


def _remedy(key: str) -> str:
    return f"move the dataset's window, or declare another {key}" + (" or none" if key == "cvr_task" else "")


def _check_length(spec: DatasetSpec, key: str, task: str) -> None:
    days = task_days(spec, task)
    if days.validation_from > days.train_from:
        return
    raise EventLogError(
        f"task {task} ({key}) must have at least 2 training days whose labels are final before the test (got a window "
        f"that trains from {days.train_from:%Y-%m-%d}, tests from {days.test_from:%Y-%m-%d} and waits "
        f"{longest_attribution_days(spec, task)} days for conversions); {_remedy(key)}"
    )


def _check_classes(log: EventLog, key: str, task: str, part: str, start: datetime, end: datetime) -> None:
    window = log.spec.window
    known_by = window.test_from if part != "test" else end + timedelta(days=longest_attribution_days(log.spec, task))
    negatives, positives = log.class_counts(task, start, end, known_by)
    if not positives or not negatives:
        raise EventLogError(
            f"task {task} ({key}) must have positives and negatives in the {part} days from {start:%Y-%m-%d} until "
            f"{end:%Y-%m-%d} (got {positives:,} positives and {negatives:,} negatives); {_remedy(key)}"
        )


def _check_new_engagement(log: EventLog) -> None:
    """Retrieval is judged on Pins that a user engages with for the first time, unless people come back to the same."""
    spec, window = log.spec, log.spec.window
    if spec.repeats:
        return
    label = quote(spec.task(spec.ctr_task).label)
    before, test = (
        log.impressions_sql(start, end)
        for start, end in ((_BEGINNING, window.test_from), (window.test_from, window.until))
    )
    pairs = "SELECT user_id, pin_id FROM"
    new = log.query(f"SELECT 1 FROM ({pairs} ({test}) WHERE {label} = 1 EXCEPT {pairs} ({before})) LIMIT 1")
    if new.num_rows == 0:
        raise EventLogError(
            f"a user must have a first {spec.ctr_task} on a Pin in the test days from {window.test_from:%Y-%m-%d} "
            f"until {window.until:%Y-%m-%d} (got 0); move the dataset's window, or declare `repeats: true` if people "
            "engage with the same Pins again"
        )
