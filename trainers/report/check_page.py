"""The page of `headwater check`: what a dataset holds and what to look at, self-contained like the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from feature_repo.contract import write_atomically
from trainers.data.inspection.schema import DataCheck
from trainers.report.page import environment
from trainers.report.plots import Plot, rates_by_day

_LINES = 4
"""Labels in one plot."""
_RARE = 0.05


def render(check: DataCheck) -> str:
    """The page as HTML text."""
    labels = list(dict.fromkeys(label for day in check.days for label in day.rates))
    template = environment().get_template("check.html")
    return template.render(check=check, labels=labels, plots=list(_plots(check, labels)), headline=headline(check))


def write(check: DataCheck, path: Path) -> None:
    """Replace the page in one step."""
    write_atomically(path, render(check))


def headline(check: DataCheck) -> str:
    """One sentence: whether a run is possible, and how much there is to look at."""
    counts = {level: sum(finding.level == level for finding in check.findings) for level in ("error", "warning")}
    if counts["error"]:
        return f"{check.dataset} cannot be trained on yet: {_number(counts['error'], 'error')}."
    if counts["warning"]:
        return f"{check.dataset} can be trained on; look at {_number(counts['warning'], 'warning')} first."
    return f"{check.dataset} can be trained on; nothing stands out."


def _number(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count > 1 else "")


def _plots(check: DataCheck, labels: list[str]) -> Iterator[Plot]:
    """Label rates by day: frequent and rare labels apart, so that the rare ones can be seen."""
    days = [day for day in check.days if day.impressions]
    if len(days) < 2:
        return
    highest = {label: max(day.rates.get(label, 0.0) for day in days) for label in labels}
    groups = {
        "Labels by day": [label for label in labels if highest[label] >= _RARE],
        "Rare labels by day": [label for label in labels if highest[label] < _RARE],
    }
    for title, group in groups.items():
        for start in range(0, len(group), _LINES):
            series = {
                label: [(day.day, day.rates[label]) for day in days if label in day.rates]
                for label in group[start : start + _LINES]
            }
            drawn = {label: points for label, points in series.items() if points}
            if drawn:
                svg = rates_by_day(drawn, name=f"rates{title[0]}{start}")
                yield Plot(title=title, svg=Markup(svg))
