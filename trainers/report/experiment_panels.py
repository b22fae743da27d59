"""Studies on the report's page: what was asked, a plot to read at a glance, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from trainers.report.experiment_tables import Row, TextTable, text_tables, title
from trainers.report.plots import Estimate, Plot, Points, axis_limits, change_by_age, lift_dots
from trainers.report.wording import signed_pct, typeset

QUESTIONS = {
    "upgrade": "A ranker was trained on version v. What if something else is published in its place?",
    "aggregation": "The vectors of an entity's days become one. What is each way worth against no embeddings?",
    "staleness": "The same ranker and retrieval read vectors that were refreshed some days ago: what is lost?",
    "refresh_cost": "A day's refresh goes on from yesterday's model. What does that lose against training anew?",
    "consumers": "Teams with less than upstream has, or as much, or one surface alone: what do vectors give them, and "
    "what is left when a store lacks them?",
    "ablation": "Parts of the upstream model are left out, or made wider: what does its consumer lose?",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentPanel:
    """One study."""

    title: str
    question: str
    plots: list[Plot]
    tables: list[TextTable]


def panel(name: str, rows: Sequence[Row]) -> ExperimentPanel:
    """A study's part of the page; one that has no plot of its own shows its table alone."""
    draw = {"upgrade": _upgrade, "aggregation": _aggregation, "staleness": _staleness, "refresh_cost": _refresh_cost}
    return ExperimentPanel(
        title=title(name),
        question=QUESTIONS.get(name, ""),
        plots=draw[name](rows) if name in draw else [],
        tables=text_tables(rows),
    )


def _upgrade(rows: Sequence[Row]) -> list[Plot]:
    estimates = _estimates(rows, "change_to_v", "case")
    axis = "change of ROC AUC against v still refreshed, %"
    return [_dots("ROC AUC of version v's consumer", estimates, axis, name="upgrade")] if estimates else []


def _aggregation(rows: Sequence[Row]) -> list[Plot]:
    groups = {training: _estimates(each, "lift", "aggregation") for training, each in _by(rows, "training").items()}
    drawn = {training: each for training, each in groups.items() if each}
    limits = axis_limits([estimate for each in drawn.values() for estimate in each])
    axis = "lift of ROC AUC over no embeddings, %"
    return [
        _dots(training[0].upper() + training[1:], each, axis, name=f"aggregation{i}", limits=limits)
        for i, (training, each) in enumerate(drawn.items())
    ]


def _staleness(rows: Sequence[Row]) -> list[Plot]:
    return [
        _curve(f"Relative change of {figure}", [row for row in rows if key in row], f"change of {figure}, %", name=name)
        for key, figure, name in (("roc_auc", "ROC AUC", "age_rankers"), ("recall_at_20", "Recall@20", "age_retrieval"))
        if any(key in row and "change_to_fresh_pct" in row for row in rows)
    ]


def _curve(heading: str, rows: Sequence[Row], axis: str, *, name: str) -> Plot:
    """Change over the vectors' age by model; what has no age is a level."""
    series: dict[str, Points] = {}
    bands: dict[str, list[tuple[float, float]]] = {}
    levels: dict[str, float] = {}
    for model, each in _by(rows, "model").items():
        aged = [row for row in each if row.get("age_days") is not None]
        series[model] = [(row["age_days"], row.get("change_to_fresh_pct", 0.0)) for row in aged]
        bands[model] = [
            row.get("change_to_fresh_ci95", (at, at)) for row, (_, at) in zip(aged, series[model], strict=True)
        ]
        rest = [row for row in each if row.get("age_days") is None and "change_to_fresh_pct" in row]
        levels |= {f"{model}, {row['vectors']}": row["change_to_fresh_pct"] for row in rest}
    return Plot(title=heading, svg=Markup(change_by_age(series, bands, levels, axis=axis, name=name)))


def _refresh_cost(rows: Sequence[Row]) -> list[Plot]:
    estimates = _estimates(rows, "change_to_retrain", "aggregation")
    axis = "change of ROC AUC against a retrain every day, %"
    return [_dots("ROC AUC with refreshed vectors", estimates, axis, name="refresh_cost")] if estimates else []


def _estimates(rows: Sequence[Row], change: str, label: str) -> list[Estimate]:
    return [
        Estimate(
            label=str(row[label]).replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"),
            value=row[f"{change}_pct"],
            interval=row.get(f"{change}_ci95"),
            text=typeset(signed_pct(row[f"{change}_pct"])),
        )
        for row in rows
        if row.get(f"{change}_pct") is not None
    ]


def _dots(
    heading: str, estimates: Sequence[Estimate], axis: str, *, name: str, limits: tuple[float, float] | None = None
) -> Plot:
    svg = lift_dots(estimates, limits or axis_limits(estimates), name=name, axis=axis)
    return Plot(title=heading, svg=Markup(svg))


def _by(rows: Sequence[Row], key: str) -> Mapping[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups
