"""One self-contained HTML page of a report: no request, light and dark, phone and desktop.

The one script on it lets a reader of the map choose colours and look up neighbours; without it all figures stay.
A section whose figures were not run does not appear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from feature_repo.contract import write_atomically
from trainers.console import duration
from trainers.report.embedding_map import EmbeddingMap
from trainers.report.experiment_panels import panel
from trainers.report.plots import (
    Estimate,
    Plot,
    auc_by_day,
    axis_limits,
    calibration_curve,
    cosine_by_day,
    lift_dots,
    precision_recall_curves,
    recall_by_depth,
    retrieval_bars,
    roc_curves,
)
from trainers.report.schema import (
    PAGE_FILE,
    EmbeddingCoverage,
    Interval,
    LiftRow,
    Optimum,
    Report,
    SliceRow,
    ViewFreshness,
)
from trainers.report.terminal import commands
from trainers.report.wording import (
    INPUTS_LABELS,
    find_task,
    gain_text,
    gap_text,
    headline,
    headline_rows,
    interval_pct,
    lead_text,
    lift_groups,
    signed_pct,
    task_meaning,
    task_title,
    typeset,
    verdict,
)

T = TypeVar("T")

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True, slots=True)
class LiftPanel:
    """One ranker of one task: its plot and table."""

    title: str
    meaning: str
    rows: list[LiftRow]
    plot: Markup | None
    """None where no lift was measured."""
    optimum: Optimum | None
    gap: str
    """How much of the gap to the optimum embeddings close; empty where it is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlicePanel:
    """Lift of one task on the parts of the test days."""

    title: str
    part: str
    rows: list[SliceRow]
    plot: Markup


def render(report: Report, run_dir: Path | None = None, found_map: EmbeddingMap | None = None) -> str:
    """The page as HTML text.

    Args:
        run_dir: Where the run lies, for the commands that serve it; without it they are left out.
        found_map: Map of the Pin embeddings.
    """
    serve = commands(report.example, run_dir) if report.example and run_dir else []
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            headline=headline(report),
            headline_rows=headline_rows(report),
            lift=_lift_panels(report),
            retrieval=_retrieval_plot(report),
            with_leads=any(row.released_lead_ci95 is not None for row in report.retrieval),
            slices=_slice_panels(report),
            training=_training_plots(report),
            calibration=_calibration_plots(report),
            curves=_curve_plots(report),
            depth=_depth_plot(report),
            drift=_drift_plots(report),
            map=found_map,
            answers=_answers(report),
            experiments=[panel(name, rows) for name, rows in report.experiments.items() if rows],
            surface_labels=_surface_labels(report),
            seconds=sum(step.seconds for step in report.steps),
            peak_mb=max((step.peak_mb for step in report.steps if step.peak_mb is not None), default=None),
            serve=serve,
        )
    )


def write(report: Report, run_dir: Path, found_map: EmbeddingMap | None = None) -> Path:
    """Replace `report.html` of a run in one step.

    Returns:
        The path written.
    """
    path = run_dir / PAGE_FILE
    write_atomically(path, render(report, run_dir, found_map))
    return path


def environment() -> Environment:
    """Templates of the pages, with the filters that they use."""
    loader = FileSystemLoader(_TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "breakable": lambda value: escape(value).replace("_", Markup("_<wbr>")),
        "count": lambda value: f"{value:,}",
        "duration": duration,
        "figure": lambda value: f"{value:.4f}",
        "gain": lambda row: typeset(gain_text(row)),
        "inputs": lambda value: INPUTS_LABELS[value],
        "lead": lambda row: typeset(lead_text(row)),
        "marked": _marked,
        "interval": lambda value: typeset(interval_pct(value)),
        "moment": _moment,
        "share": _share,
        "signed": lambda value: typeset(signed_pct(value)),
        "typeset": typeset,
        "verdict": verdict,
    }
    return environment


def _marked(text: str) -> Markup:
    """The text with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _moment(value: datetime) -> str:
    """A moment in UTC; midnight is written as the date alone."""
    utc = value.astimezone(UTC)
    return f"{utc:%Y-%m-%d}" if utc.time() == time() else f"{utc:%Y-%m-%d %H:%M}"


def _share(value: float) -> str:
    """A share in percent; a rare one keeps two digits."""
    return f"{100 * value:.2g}%" if 0 < value < 0.01 else f"{100 * value:.1f}%"


def _groups(pairs: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """Values by key, in order of first appearance."""
    groups: dict[str, list[T]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _lift_panels(report: Report) -> list[LiftPanel]:
    groups = lift_groups(report)
    estimates = {
        key: [_lift_estimate(row) for row in rows if row.roc_auc_lift_pct is not None] for key, rows in groups.items()
    }
    limits = axis_limits([estimate for group in estimates.values() for estimate in group])
    panels = []
    for i, ((task, ranker), rows) in enumerate(groups.items()):
        drawn = estimates[task, ranker]
        panels.append(
            LiftPanel(
                title=f"{task_title(task)}, {ranker}",
                meaning=task_meaning(find_task(report, task)),
                rows=rows,
                plot=Markup(lift_dots(drawn, limits, name=f"lift{i}")) if drawn else None,
                optimum=next((optimum for optimum in report.optimum if optimum.task == task), None),
                gap=typeset(gap_text(report, rows)),
            )
        )
    return panels


def _lift_estimate(row: LiftRow) -> Estimate:
    lift_pct = row.roc_auc_lift_pct or 0.0
    return _estimate(INPUTS_LABELS[row.inputs], lift_pct, row.roc_auc_lift_ci95)


def _estimate(label: str, lift_pct: float, interval: Interval | None) -> Estimate:
    return Estimate(label=label, value=lift_pct, interval=interval, text=typeset(signed_pct(lift_pct)))


def _retrieval_plot(report: Report) -> Markup | None:
    if not report.retrieval:
        return None
    estimates = [
        Estimate(label=row.model, value=row.recall_at_20, interval=row.ci95, text=f"{row.recall_at_20:.4f}")
        for row in report.retrieval
    ]
    return Markup(retrieval_bars(estimates, name="retrieval"))


def _slice_panels(report: Report) -> list[SlicePanel]:
    panels = []
    for i, (title, rows) in enumerate(
        _groups((f"{task_title(row.task)} by {_part(row)}", row) for row in report.slices).items()
    ):
        if len(rows) < 2:
            continue
        estimates = [_estimate(row.value, row.lift_pct, row.ci95) for row in rows]
        svg = Markup(lift_dots(estimates, axis_limits(estimates), name=f"slice{i}"))
        panels.append(SlicePanel(title=title, part=_part(rows[0]), rows=rows, plot=svg))
    return panels


def _part(row: SliceRow) -> str:
    """What a slice divides by, in words: `user activity`, `new or known Pin`."""
    return " ".join("Pin" if word == "pin" else word for word in row.slice.split("_"))


def _training_plots(report: Report) -> list[Plot]:
    plots = []
    for i, (model, rows) in enumerate(_groups((row.model, row) for row in report.training).items()):
        series = _groups((row.task, (row.day, row.roc_auc)) for row in sorted(rows, key=lambda row: row.day))
        svg = Markup(auc_by_day(series, name=f"training{i}"))
        plots.append(Plot(title=f"Upstream model {model}", svg=svg))
    return plots


def _calibration_plots(report: Report) -> list[Plot]:
    curves = [curve for curve in report.calibration if curve.bins]
    plots = []
    for i, (title, group) in enumerate(
        _groups((f"{task_title(curve.task)}, {curve.ranker}", curve) for curve in curves).items()
    ):
        series = {INPUTS_LABELS[curve.inputs]: curve.bins for curve in group}
        svg = Markup(calibration_curve(series, name=f"calibration{i}"))
        plots.append(Plot(title=title, svg=svg))
    return plots


def _curve_plots(report: Report) -> list[Plot]:
    """ROC and precision-recall curves side by side, without and with embeddings."""
    plots = []
    groups = _groups((f"{task_title(curve.task)}, {curve.ranker}", curve) for curve in report.curves)
    for i, (title, group) in enumerate(groups.items()):
        task = find_task(report, group[0].task)
        roc = roc_curves({INPUTS_LABELS[each.inputs]: each.roc for each in group}, name=f"roc{i}")
        series = {INPUTS_LABELS[each.inputs]: each.precision_recall for each in group}
        rate = task.positive_rate if task else None
        plots.append(Plot(title=f"{title}: ROC", svg=Markup(roc)))
        svg = Markup(precision_recall_curves(series, rate, name=f"pr{i}"))
        plots.append(Plot(title=f"{title}: precision and recall", svg=svg))
    return plots


def _depth_plot(report: Report) -> Markup | None:
    series = {row.model: row.recall_curve for row in report.retrieval if row.recall_curve}
    return Markup(recall_by_depth(series, name="depth")) if series else None


def _answers(report: Report) -> dict[str, EmbeddingCoverage | ViewFreshness]:
    """What test rows got from a view, by view: present, missing, outside max age."""
    activity = {row.view: row for row in report.freshness if row.present is not None}
    return activity | {row.view: row for row in report.embeddings}


def _drift_plots(report: Report) -> list[Plot]:
    """Mean cosine to the day before, and that of the most moved tenth, by view."""
    plots = []
    for i, (view, days) in enumerate(_groups((row.view, row) for row in report.drift).items()):
        series = {
            "mean": [(row.day, row.cosine) for row in days],
            "most moved tenth, at most": [(row.day, row.low_cosine) for row in days],
        }
        plots.append(Plot(title=view, svg=Markup(cosine_by_day(series, name=f"drift{i}"))))
    return plots


def _surface_labels(report: Report) -> list[str]:
    surfaces = report.data.surfaces if report.data else ()
    return list(dict.fromkeys(label for surface in surfaces for label in surface.label_rates))
