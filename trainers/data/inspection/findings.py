"""What a person should know of a dataset's figures before a model is trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import sqrt

import pyarrow as pa

from feature_repo.contract import EVENT_TIMESTAMP, attributes_view, feature_reference
from trainers.data.columns import PINS, USERS, table_columns
from trainers.data.connection import literal, quote
from trainers.data.event_log import EventLog
from trainers.data.inspection.schema import DataCheck, DayRates, DelayCheck, Finding
from trainers.data.leaks import check_labels

_SAMPLED_ROWS = 100_000
_ENTITY_TABLES = {"user": USERS, "pin": PINS}
_LEAST_WITHIN = 0.8
_JUMP, _SURE, _LEAST_IMPRESSIONS = 3.0, 4.0, 100
_FEW_POSITIVES = 200
_FEW_IMPRESSIONS_EACH = 2.0


def findings(check: DataCheck, log: EventLog) -> Iterator[Finding]:
    """Everything worth saying about an event log that can be trained on."""
    yield from _quarantine(check)
    yield from (Finding(level="warning", text=warning) for warning in log.report.warnings)
    yield from _leaks(log)
    for delay in check.delays:
        yield from _late(delay)
    for before, after in pairwise(check.days):
        yield from _jumps(before, after)
    yield from _few_positives(check)
    if 0 < check.impressions_per_user < _FEW_IMPRESSIONS_EACH:
        text = (
            f"users have {check.impressions_per_user:.1f} impressions each: histories will be short; give more days, "
            "or a long history from another source (`histories`)"
        )
        yield Finding(level="note", text=text)


def _few_positives(check: DataCheck) -> Iterator[Finding]:
    for name in dict.fromkeys(task.task for task in check.tasks):
        parts = [task for task in check.tasks if task.task == name]
        if min(task.positives for task in parts) < _FEW_POSITIVES:
            counts = ", ".join(f"{task.positives:,} in {task.part}" for task in parts)
            text = f"task {name} has few positives ({counts}): expect wide intervals; widen the window if you can"
            yield Finding(level="warning", text=text)


def _quarantine(check: DataCheck) -> Iterator[Finding]:
    for table in check.tables:
        for reason, count in table.quarantined.items():
            text = f"{table.table}: {count:,} of {table.read:,} rows set aside: {reason}"
            yield Finding(level="warning", text=text)


def _late(delay: DelayCheck) -> Iterator[Finding]:
    if delay.within < _LEAST_WITHIN:
        text = (
            f"conversion {delay.kind}: {delay.within:.0%} come within its attribution window of "
            f"{delay.attribution_days} days (95 % within {delay.p95_days:.1f}): the others count as negatives; "
            "raise attribution_days"
        )
        yield Finding(level="warning", text=text)


def _jumps(before: DayRates, after: DayRates) -> Iterator[Finding]:
    """Rates that change at once: mostly a changed logging, seldom changed people."""
    if min(before.impressions, after.impressions) < _LEAST_IMPRESSIONS:
        return
    for label in before.rates.keys() & after.rates.keys():
        one, other = before.rates[label], after.rates[label]
        if max(one, other) > _JUMP * min(one, other) and _deviations(before, after, label) > _SURE:
            text = (
                f"label {label}: its rate goes from {before.rates[label]:.2%} on {before.day} to "
                f"{after.rates[label]:.2%} on {after.day}; was it logged alike?"
            )
            yield Finding(level="warning", text=text)


def _deviations(before: DayRates, after: DayRates, label: str) -> float:
    """Difference of a label's rates in standard errors of two samples of one rate."""
    sizes = (before.impressions, after.impressions)
    rates = (before.rates[label], after.rates[label])
    pooled = sum(size * rate for size, rate in zip(sizes, rates, strict=True)) / sum(sizes)
    spread = sqrt(pooled * (1.0 - pooled) * sum(1.0 / size for size in sizes))
    return abs(rates[0] - rates[1]) / spread if spread else 0.0


def _leaks(log: EventLog) -> Iterator[Finding]:
    """Attributes that know the labels."""
    labels = list(log.spec.labels)
    frame = _frame(log, labels)
    for leak in check_labels(frame, labels):
        yield Finding(level="warning", text=leak.text)


def _frame(log: EventLog, labels: list[str]) -> pa.Table:
    """A sample of the impressions with the attributes that held at their time."""
    window = log.spec.window
    impressions = log.impressions_sql(window.features_from, window.until)
    columns, joins = [], []
    for entity, table in _ENTITY_TABLES.items():
        path = log.path / f"{table}.parquet"
        if not path.exists():
            continue
        key = f"{entity}_id"
        joins.append(
            f"ASOF LEFT JOIN read_parquet({literal(path)}) AS {table} ON i.{key} = {table}.{key} "
            f"AND i.{EVENT_TIMESTAMP} >= {table}.{EVENT_TIMESTAMP}"
        )
        for column in table_columns(log.spec, table)[2:]:
            name = feature_reference(attributes_view(entity), column.name)
            columns.append(f"{table}.{quote(column.name)} AS {quote(name)}")
    known = ", ".join(["i.user_id", "i.pin_id", f"i.{EVENT_TIMESTAMP}", *(f"i.{quote(each)}" for each in labels)])
    sample = f"(SELECT * FROM ({impressions}) USING SAMPLE reservoir({_SAMPLED_ROWS} ROWS) REPEATABLE (1)) AS i"
    return log.query(f"SELECT {', '.join([known, *columns])} FROM {sample} {' '.join(joins)}")
