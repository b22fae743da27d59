"""Sentences and numbers of the report, the same on the page and in the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainers.report.schema import INPUTS_ORDER, Inputs, Interval, LiftRow, Report, RetrievalRow, Task

INPUTS_LABELS: dict[Inputs, str] = {
    "none": "no embeddings",
    "user": "user",
    "pin": "Pin",
    "both": "user + Pin",
    "other_domain": "other domain",
    "both_domains": "both domains",
    "unified": "unified model",
}
_INPUTS_IN_SENTENCE: dict[Inputs, str] = {
    "both": "user and Pin embeddings",
    "both_domains": "user and Pin embeddings of both domains",
    "user": "user embeddings",
    "pin": "Pin embeddings",
    "other_domain": "user and Pin embeddings of the other domain",
    "unified": "user and Pin embeddings of the unified model",
}


def signed_pct(value: float) -> str:
    """Percentage with its sign: `+1.24%`; one that rounds to zero has none."""
    text = f"{value:+.2f}%"
    return "0.00%" if text in ("+0.00%", "-0.00%") else text


def interval_pct(interval: tuple[float, float]) -> str:
    """Interval of a percentage: `+0.83% to +1.66%`."""
    return f"{signed_pct(interval[0])} to {signed_pct(interval[1])}"


def gap_text(report: Report, rows: Sequence[LiftRow]) -> str:
    """How much of the way from no embeddings to the true probabilities the last arm goes; empty where not known.

    Args:
        rows: Arms of one ranker, the one without embeddings first.
    """
    best = next((each.roc_auc for each in report.optimum if each.task == rows[0].task), None)
    if best is None or len(rows) < 2 or rows[0].inputs != "none" or best <= rows[0].roc_auc:
        return ""
    share = 100.0 * (rows[-1].roc_auc - rows[0].roc_auc) / (best - rows[0].roc_auc)
    return f"embeddings close {share:.1f}% of the gap"


def typeset(text: str) -> str:
    """The text with true minus signs before numbers; dates and ranges keep their hyphens."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", text)


def gain_text(row: RetrievalRow) -> str:
    """Difference of Recall@20 from the two-tower without embeddings: `+0.0111 (+0.0044 to +0.0178)`."""
    return _difference_text(row.recall_gain, row.recall_gain_ci95)


def lead_text(row: RetrievalRow) -> str:
    """Difference of the released two-tower's Recall@20 from this model's, worded as in `gain_text`."""
    return _difference_text(row.released_lead, row.released_lead_ci95)


def _difference_text(value: float | None, interval: Interval | None) -> str:
    if value is None or interval is None:
        return ""
    low, high = interval
    return f"{value:+.4f} ({low:+.4f} to {high:+.4f})"


def task_title(task: str) -> str:
    """Task as a heading: `CTR`, `CVR`, or its own name."""
    return task.upper() if task in ("ctr", "cvr") else task


def task_meaning(task: Task | None) -> str:
    """What a task predicts: `click`, or `long_view given click`; empty where the report doesn't say."""
    if task is None:
        return ""
    return f"{task.label} given {task.given}" if task.given else task.label


def find_task(report: Report, name: str) -> Task | None:
    """What the report says about a task."""
    tasks = report.data.tasks if report.data else ()
    return next((task for task in tasks if task.task == name), None)


def lift_groups(report: Report) -> dict[tuple[str, str], list[LiftRow]]:
    """Lift rows by task and ranker, from no embeddings to all of them."""
    groups: dict[tuple[str, str], list[LiftRow]] = {}
    for row in sorted(report.lift, key=lambda row: INPUTS_ORDER.index(row.inputs)):
        groups.setdefault((row.task, row.ranker), []).append(row)
    as_reported = [(row.task, row.ranker) for row in report.lift]
    return dict(sorted(groups.items(), key=lambda item: as_reported.index(item[0])))


def verdict(row: LiftRow) -> str:
    """`higher`, `lower`, `no significant lift`, `too few users to judge`; empty for a row without lift."""
    if row.roc_auc_lift_pct is None:
        return ""
    if row.significant is None:
        return "too few users to judge"
    if not row.significant:
        return "no significant lift"
    return "higher" if row.roc_auc_lift_pct > 0 else "lower"


def headline_rows(report: Report) -> list[LiftRow]:
    """The comparison that the headline is about: one row per task, all with the same inputs.

    Chosen by the inputs alone, never by the size of the lift: `both`, or where that was not run the next of
    `both_domains`, `user`, `pin`, `other_domain` and `unified`. Of several rankers the first, which is the one that a
    release serves.
    """
    measured = [row for row in report.lift if row.roc_auc_lift_pct is not None]
    for inputs in _INPUTS_IN_SENTENCE:
        rows = [row for row in measured if row.inputs == inputs]
        if rows:
            return list({row.task: row for row in reversed(rows)}.values())[::-1]
    return []


def headline(report: Report) -> str:
    """What the run found, in one sentence."""
    rows = headline_rows(report)
    if not rows:
        return "This run did not measure lift."
    clauses = "; ".join(_clause(row, report.lift) for row in rows)
    return f"With {_INPUTS_IN_SENTENCE[rows[0].inputs]}, {clauses}."


def _clause(row: LiftRow, rows: Sequence[LiftRow]) -> str:
    """One ranker's part of the headline, with its name where the task has others."""
    alone = len({other.ranker for other in rows if other.task == row.task}) == 1
    subject = f"the {task_title(row.task)} ranker's ROC AUC" + ("" if alone else f" ({row.ranker})")
    lift = row.roc_auc_lift_pct or 0.0
    rounds_to_zero = f"{abs(lift):.2f}" == "0.00"
    movement = "does not change" if rounds_to_zero else f"{'rises' if lift > 0 else 'falls'} by {abs(lift):.2f}%"
    if row.roc_auc_lift_ci95 is None:
        return f"{subject} cannot be judged ({signed_pct(lift)} on too few users with positives, or with negatives)"
    interval = f"95% interval {interval_pct(row.roc_auc_lift_ci95)}"
    if not row.significant:
        return f"{subject} shows no significant lift ({signed_pct(lift)}, {interval})"
    return f"{subject} {movement} ({interval})"
