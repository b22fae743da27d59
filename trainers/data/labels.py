"""Labels as they were known at a cut-off.

A label known with its impression resolves at once. A conversion resolves a positive when it happens, if inside the
attribution window, and a negative when the window closes; between the two the label is not known yet, which is
neither a positive nor a negative. Near the cut-off the known labels are therefore mostly positives; who needs their
true rate asks for `matured` labels alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from trainers.data.connection import literal, moment, quote
from trainers.data.dataset import Task

if TYPE_CHECKING:
    from trainers.data.event_log import EventLog

_KEYS = ("impression_id", "user_id", "pin_id", "surface", "event_timestamp")
_OPTIONAL = ("position", "propensity", "sampling_rate")


def labelled(
    log: EventLog, task: str, from_: datetime, until: datetime, known_by: datetime, *, matured: bool = False
) -> pa.Table:
    """Impressions of a period on which the task is defined and its label known.

    Args:
        log: The event log.
        task: Name of a task of the dataset.
        from_: Start of the period of impressions.
        until: End of the period, exclusive.
        known_by: Labels that resolve after this moment are left out.
        matured: Leave out positives too, as long as the attribution window of their impression is open.

    Returns:
        `impression_id`, `user_id`, `pin_id`, `surface`, `event_timestamp`, `label` (int8 0 or 1) and `resolved_at`, by
        (event_timestamp, impression_id).
    """
    return log.query(
        f"SELECT {', '.join(_KEYS)}, {quote(task)} AS label, {quote(f'resolved_at_{task}')} AS resolved_at "
        f"FROM ({_query(log, (log.spec.task(task),), from_, until, known_by, matured)}) WHERE label IS NOT NULL "
        "ORDER BY event_timestamp, impression_id"
    )


def class_counts(log: EventLog, task: str, from_: datetime, until: datetime, known_by: datetime) -> tuple[int, int]:
    """Impressions of a period with label 0 and with label 1; the arguments are those of `labelled`."""
    query = _query(log, (log.spec.task(task),), from_, until, known_by, matured=False)
    counted = log.query(f"SELECT {quote(task)} AS label, count(*) AS n FROM ({query}) GROUP BY label").to_pylist()
    counts = {row["label"]: row["n"] for row in counted}
    return counts.get(0, 0), counts.get(1, 0)


def task_labels(
    log: EventLog, from_: datetime, until: datetime, known_by: datetime, *, matured: bool = False
) -> pa.Table:
    """Every impression of a period with one int8 column per task, null where undefined or not known yet.

    Columns named like a task hold the task's label, so the log's own label columns are left out; what else an
    impression has (`position`, `propensity`, `sampling_rate`) stays. `resolved_at_<task>` is null where the label is.
    Rows come by (event_timestamp, impression_id); the arguments are those of `labelled`.
    """
    query = _query(log, log.spec.tasks, from_, until, known_by, matured)
    return log.query(f"{query} ORDER BY event_timestamp, impression_id")


def _query(
    log: EventLog, tasks: tuple[Task, ...], from_: datetime, until: datetime, known_by: datetime, matured: bool
) -> str:
    kinds = {task.label for task in tasks if log.spec.conversion_kind(task.label)}
    columns = [f"i.{name}" for name in (*_KEYS, *_optional(log, from_, until))]
    for task in tasks:
        label, resolved_at, closes = _label(log, task)
        if task.given:
            label = f"CASE WHEN i.{quote(task.given)} = 1 THEN {label} END"
        known = f"{label} IS NOT NULL AND {closes if matured else resolved_at} <= {moment(known_by)}"
        columns.append(f"(CASE WHEN {known} THEN {label} END)::TINYINT AS {quote(task.name)}")
        columns.append(f"CASE WHEN {known} THEN {resolved_at} END AS {quote(f'resolved_at_{task.name}')}")
    joins = [_first_conversion(log, kind, from_, until) for kind in sorted(kinds)]
    return f"SELECT {', '.join(columns)} FROM ({log.impressions_sql(from_, until)}) AS i {' '.join(joins)}"


def _optional(log: EventLog, from_: datetime, until: datetime) -> list[str]:
    have = log.query(f"SELECT * FROM ({log.impressions_sql(from_, until)}) LIMIT 0").column_names
    return [name for name in _OPTIONAL if name in have]


def _label(log: EventLog, task: Task) -> tuple[str, str, str]:
    """SQL of a task's label, of the moment at which it becomes known, and of the one from which it cannot change."""
    conversion = log.spec.conversion_kind(task.label)
    if conversion is None:
        return f"i.{quote(task.label)}", "i.event_timestamp", "i.event_timestamp"
    converted_at = f"{quote(f'first_{task.label}')}.converted_at"
    closes = f"i.event_timestamp + INTERVAL {conversion.attribution_days * 24} HOUR"
    return f"({converted_at} IS NOT NULL)::TINYINT", f"coalesce({converted_at}, {closes})", closes


def _first_conversion(log: EventLog, kind: str, from_: datetime, until: datetime) -> str:
    """Join of each impression's first conversion of a kind inside the attribution window."""
    conversion = log.spec.conversion_kind(kind)
    assert conversion is not None
    window = timedelta(days=conversion.attribution_days)
    conversions = log.conversions_sql(from_, until + window)
    name = quote(f"first_{kind}")
    return (
        f"LEFT JOIN (SELECT c.impression_id, min(c.event_timestamp) AS converted_at FROM ({conversions}) AS c "
        f"JOIN ({log.impressions_sql(from_, until)}) AS shown USING (impression_id) WHERE c.kind = {literal(kind)} "
        f"AND c.event_timestamp <= shown.event_timestamp + INTERVAL {conversion.attribution_days * 24} HOUR "
        f"GROUP BY c.impression_id) AS {name} ON {name}.impression_id = i.impression_id"
    )
