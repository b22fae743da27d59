"""Plots of the report as inline SVG, drawn so that the page's style sheet decides the colours.

Matplotlib gets stand-in colours, which become CSS variables in its output: one drawing serves light and dark. Text
stays text. Widths are those of one column of the page, so that labels are readable on a phone.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from textwrap import wrap
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from trainers.report.schema import CalibrationBin, Interval

INK, MUTED, RULE, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
SERIES = ("#1a0001", "#1a0002", "#1a0003", "#1a0004", "#1a0005", "#1a0006")
_DASHES = ("-", (0, (5, 2)), (0, (2, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_CSS = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"} | {
    color: f"--series-{i}" for i, color in enumerate(SERIES, start=1)
}
_WIDTH_IN = 4.6
_STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A drawing with its heading."""

    title: str
    svg: Markup


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """One figure with its 95% interval, to be drawn on a line of its own."""

    label: str
    value: float
    text: str
    """The figure as the plot writes it at the end of its line."""
    interval: Interval | None = None


def axis_limits(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Range of an axis that shows 0 and every interval whole; panels to be compared share it."""
    ends = [0.0, *(end for row in estimates for end in (row.interval or (row.value, row.value)))]
    margin = 0.06 * (max(ends) - min(ends)) or 1.0
    return min(ends) - margin, max(ends) + margin


@mpl.rc_context(_STYLE)
def lift_dots(
    estimates: Sequence[Estimate],
    limits: tuple[float, float],
    *,
    name: str,
    axis: str = "relative change of ROC AUC, %",
) -> str:
    """SVG of lifts against a line at 0; a hollow dot has an interval that includes 0,
    a grey one has none.

    Args:
        limits: Range of the axis, percent.
        name: Unique on the page; the ids inside the SVG begin with it.
    """
    figure, axes = _figure(0.62 + _line_in(estimates) * len(estimates))
    axes.axvline(0.0, color=MUTED, linewidth=0.9)
    for y, row in enumerate(estimates):
        color = SERIES[0] if row.interval else MUTED
        lo, hi = row.interval or (row.value, row.value)
        axes.plot([lo, hi], [y, y], color=color, linewidth=1.6, solid_capstyle="butt")
        fill = PAPER if row.interval and lo <= 0 <= hi else color
        axes.plot([row.value], [y], "o", markersize=6, markerfacecolor=fill, markeredgecolor=color)
    _label_lines(axes, estimates)
    axes.set_xlim(limits)
    axes.grid(axis="x")
    axes.set_xlabel(axis)
    return _svg(figure, name, f"{axis[0].upper()}{axis[1:]} with 95% intervals")


@mpl.rc_context(_STYLE)
def retrieval_bars(estimates: Sequence[Estimate], *, name: str) -> str:
    """SVG of Recall@20 by model, from 0."""
    figure, axes = _figure(0.62 + _line_in(estimates) * len(estimates))
    for y, row in enumerate(estimates):
        axes.barh(y, row.value, height=0.62, color=SERIES[0], alpha=0.55, linewidth=0)
        if row.interval:
            axes.plot(row.interval, [y, y], color=INK, linewidth=1.4, solid_capstyle="butt")
    _label_lines(axes, estimates)
    axes.set_xlim(left=0.0)
    axes.grid(axis="x")
    axes.set_xlabel("Recall@20")
    return _svg(figure, name, "Recall@20 by retrieval model with 95% intervals")


def auc_by_day(series: Mapping[str, Sequence[tuple[date, float]]], *, name: str) -> str:
    """SVG of one upstream model's ROC AUC on each day before it trained on it, one line per task."""
    return _by_day(series, name=name, axis="ROC AUC", description="ROC AUC by day")


def rates_by_day(series: Mapping[str, Sequence[tuple[date, float]]], *, name: str) -> str:
    """SVG of the share of the impressions of each day that have a label, percent, one line per label."""
    percent = {label: [(day, 100 * rate) for day, rate in points] for label, points in series.items()}
    return _by_day(percent, name=name, axis="% of impressions", description="Label rates by day", from_zero=True)


@mpl.rc_context(_STYLE)
def _by_day(
    series: Mapping[str, Sequence[tuple[date, float]]],
    *,
    name: str,
    axis: str,
    description: str,
    from_zero: bool = False,
) -> str:
    figure, axes = _figure(2.7)
    for i, (label, points) in enumerate(series.items()):
        x, y = zip(*((day.toordinal(), value) for day, value in points), strict=True)
        axes.plot(x, y, **_line(i), label=label, linewidth=1.4, markersize=4, markevery=math.ceil(len(x) / 20))
    days = sorted({day for points in series.values() for day, _ in points})
    labelled = days[:: math.ceil(len(days) / 6)]
    axes.set_xticks([day.toordinal() for day in labelled], [f"{day.day} {day:%b}" for day in labelled])
    if from_zero:
        axes.set_ylim(bottom=0.0)
    axes.grid(axis="y")
    axes.set_ylabel(axis)
    axes.set_xlabel("day (UTC)")
    figure.legend(loc="outside upper left", ncols=min(3, len(series)), handlelength=1.6)
    return _svg(figure, name, description)


def wilson_interval(rate: float, n: int) -> Interval:
    """95% interval of a probability whose event came up in a share `rate` of `n` trials.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    if n == 0:
        return 0.0, 1.0
    z = 1.959964
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


@mpl.rc_context(_STYLE)
def calibration_curve(series: Mapping[str, Sequence[CalibrationBin]], *, name: str) -> str:
    """SVG of observed rate over mean predicted probability, with Wilson 95% intervals."""
    figure, axes = _figure(3.5)
    top = 0.0
    for i, (label, bins) in enumerate(series.items()):
        color = SERIES[i % len(SERIES)]
        axes.plot([b.predicted for b in bins], [b.observed for b in bins], color=color, label=label, linewidth=1.2,
                  marker=_MARKERS[i % len(_MARKERS)], markersize=4)  # fmt: skip
        lows, highs = zip(*(wilson_interval(b.observed, b.n) for b in bins), strict=True)
        axes.vlines([b.predicted for b in bins], lows, highs, color=color, linewidth=1.2)
        top = max(top, *highs, *(b.predicted for b in bins))
    top = min(1.0, 1.05 * top)
    axes.plot([0, top], [0, top], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="mean predicted probability", ylabel="observed rate", aspect="equal")
    axes.locator_params(nbins=5)
    axes.grid()
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.6)
    return _svg(figure, name, "Observed rate over mean predicted probability")


@mpl.rc_context(_STYLE)
def roc_curves(series: Mapping[str, Points], *, name: str) -> str:
    """SVG of true over false positive rate, one line per ranker."""
    figure, axes = _curves(series)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    return _svg(figure, name, "True positive rate over false positive rate")


@mpl.rc_context(_STYLE)
def precision_recall_curves(series: Mapping[str, Points], rate: float | None, *, name: str) -> str:
    """SVG of precision over recall, one line per ranker; the dashed line is the share of positives."""
    figure, axes = _curves(series)
    if rate is not None:
        axes.axhline(rate, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision", aspect="equal")
    return _svg(figure, name, "Precision over recall")


def _curves(series: Mapping[str, Points]) -> tuple[Figure, Axes]:
    figure, axes = _figure(3.7)
    for i, (label, points) in enumerate(series.items()):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=SERIES[i % len(SERIES)], label=label, linewidth=1.6, linestyle=_DASHES[i % len(_DASHES)])
    axes.locator_params(nbins=5)
    axes.grid()
    figure.legend(loc="outside upper left", ncols=2, handlelength=2.2)
    return figure, axes


def _line(i: int) -> dict[str, Any]:
    """Colour, marker and dashes of one line among many; where colours begin anew, lines are dashed."""
    dashes = _DASHES[i // len(SERIES) % len(_DASHES)]
    return {"color": SERIES[i % len(SERIES)], "marker": _MARKERS[i % len(_MARKERS)], "linestyle": dashes}


@mpl.rc_context(_STYLE)
def recall_by_depth(series: Mapping[str, Points], *, name: str) -> str:
    """SVG of recall over the number of candidates, one line per retrieval model."""
    figure, axes = _figure(3.1 + 0.2 * len(series))
    for i, (label, points) in enumerate(series.items()):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, **_line(i), label=label, linewidth=1.4, markersize=4)
    depths = sorted({int(depth) for points in series.values() for depth, _ in points})
    axes.set_xscale("log")
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.minorticks_off()
    axes.set_ylim(bottom=0.0)
    axes.grid(axis="y")
    axes.set(xlabel="candidates, k", ylabel="Recall@k")
    figure.legend(loc="outside upper left", ncols=1, handlelength=1.6)
    return _svg(figure, name, "Recall over the number of candidates")


def cosine_by_day(series: Mapping[str, Sequence[tuple[date, float]]], *, name: str) -> str:
    """SVG of the mean cosine of an embedding view's vectors with those of the day before, one line per entity."""
    return _by_day(series, name=name, axis="cosine to the day before", description="Movement of embeddings by day")


@mpl.rc_context(_STYLE)
def change_by_age(
    series: Mapping[str, Points],
    bands: Mapping[str, Sequence[Interval]],
    levels: Mapping[str, float],
    *,
    axis: str,
    name: str,
) -> str:
    """SVG of a change over the age of vectors in days, one line per model, with its interval as a band.

    Args:
        levels: Changes that have no age, by what they are of: a dashed line each.
    """
    figure, axes = _figure(3.1 + 0.2 * (len(series) + len(levels)))
    axes.axhline(0.0, color=MUTED, linewidth=0.9)
    for i, (label, points) in enumerate(series.items()):
        x, y = zip(*points, strict=True)
        low, high = zip(*bands[label], strict=True)
        color = SERIES[i % len(SERIES)]
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(x, y, color=color, label=label, linewidth=1.4, marker=_MARKERS[i % len(_MARKERS)], markersize=4)
    for i, (label, value) in enumerate(levels.items(), start=len(series)):
        axes.axhline(value, color=SERIES[i % len(SERIES)], label=label, linewidth=1.3, linestyle=(0, (5, 2)))
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", integer=True)
    axes.grid(axis="y")
    axes.set(xlabel="days older than the last refresh", ylabel=axis)
    figure.legend(loc="outside upper left", ncols=1, handlelength=1.8)
    return _svg(figure, name, f"{axis[0].upper()}{axis[1:]} over the age of the vectors")


def _figure(height_in: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    return figure, axes


def _wrapped(label: str) -> str:
    return "\n".join(wrap(label, 22, max_lines=3, placeholder=" \N{HORIZONTAL ELLIPSIS}"))


def _line_in(estimates: Sequence[Estimate]) -> float:
    """Height of an estimate's line in inches: more where a label takes two or three."""
    most = max((_wrapped(row.label).count("\n") for row in estimates), default=0)
    return (0.28, 0.37, 0.52)[most]


def _label_lines(axes: Axes, estimates: Sequence[Estimate]) -> None:
    """Write each estimate's label on its left and its figure on its right, the first on top."""
    axes.set_yticks(range(len(estimates)), [_wrapped(row.label) for row in estimates])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(estimates) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=6)
    for y, row in enumerate(estimates):
        axes.annotate(
            row.text,
            (1.02, y),
            xycoords=("axes fraction", "data"),
            va="center_baseline",
            color=INK,
            annotation_clip=False,
        )


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `svg` element that can stand beside others in one page."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The style element would apply to the whole page.
    text = re.sub(r"<(style|metadata)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub("#[0-9a-f]{6}", lambda match: f"var({_CSS[match[0]]})" if match[0] in _CSS else match[0], text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
