"""Days from which a task is learned, by which its training stops, and on which it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from trainers.data.dataset import DatasetSpec

VALIDATION_SHARE = 8
"""One part in this many of the training days, the last ones, is for validation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDays:
    """Moments that part the days of a task; training may be empty where the window is too short."""

    train_from: datetime
    """First training day."""
    validation_from: datetime
    """End of the days that weights are fitted on."""
    closed: datetime
    """End of validation: impressions before it have a closed attribution window when the test begins."""
    test_from: datetime
    """First test day."""
    until: datetime
    """End of the test days."""

    def parts(self) -> dict[str, tuple[datetime, datetime]]:
        """Start and end, exclusive, of `train`, `validation` and `test`."""
        return {
            "train": (self.train_from, self.validation_from),
            "validation": (self.validation_from, self.closed),
            "test": (self.test_from, self.until),
        }


def task_days(spec: DatasetSpec, task_name: str) -> TaskDays:
    """Days of a task; training ends early enough that every label's attribution window has closed by the test days.

    Early conversions of later impressions are known, their missing ones are not: taking both would learn too high a
    rate, so those impressions are left out. That holds for every task of the domain, since a ranker learns them all.
    """
    closed = spec.window.test_from - timedelta(days=longest_attribution_days(spec, task_name))
    days = max(1, (closed - spec.window.train_from).days)
    return TaskDays(
        train_from=spec.window.train_from,
        validation_from=closed - timedelta(days=max(1, round(days / VALIDATION_SHARE))),
        closed=closed,
        test_from=spec.window.test_from,
        until=spec.window.until,
    )


def longest_attribution_days(spec: DatasetSpec, task_name: str) -> int:
    """Longest attribution window among the tasks of a task's domain; 0 where all labels come with the impression."""
    domain = spec.domain_tasks(spec.task(task_name).domain)
    conversions = [conversion for each in domain if (conversion := spec.conversion_kind(each.label))]
    return max((conversion.attribution_days for conversion in conversions), default=0)
