"""Drawings: the right marks, safe to put beside each other in a page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from datetime import date

import pytest

from trainers.report.plots import Estimate, auc_by_day, axis_limits, calibration_curve, lift_dots, wilson_interval
from trainers.report.schema import CalibrationBin, Interval

_SVG = "{http://www.w3.org/2000/svg}"


def estimate(value: float, interval: Interval | None, label: str = "user") -> Estimate:
    return Estimate(label=label, value=value, text=f"{value}", interval=interval)


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{_SVG}text")]


@pytest.mark.parametrize(
    ("rate", "n", "lo", "hi"),
    [
        (0.5, 10, 0.2366, 0.7634),
        (0.0, 10, 0.0, 0.2775),
        (1.0, 10, 0.7225, 1.0),
        (0.3, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval_matches_published_values(rate: float, n: int, lo: float, hi: float) -> None:
    assert wilson_interval(rate, n) == pytest.approx((lo, hi), abs=5e-5)


@pytest.mark.parametrize(
    ("estimates", "lo", "hi"),
    [
        ([estimate(2.0, (1.0, 3.0))], -0.18, 3.18),
        ([estimate(2.0, None), estimate(-1.0, (-2.0, 0.0))], -2.24, 2.24),
        ([estimate(0.0, None)], -1.0, 1.0),
        ([], -1.0, 1.0),
    ],
)
def test_axis_limits_hold_zero_and_every_interval(estimates: list[Estimate], lo: float, hi: float) -> None:
    assert axis_limits(estimates) == pytest.approx((lo, hi))


@pytest.mark.parametrize(
    ("interval", "fill"),
    [((1.0, 3.0), "var(--series-1)"), ((-1.0, 3.0), "var(--paper)"), (None, "var(--muted)")],
)
def test_lift_dot_is_hollow_only_when_its_interval_includes_zero(interval: Interval | None, fill: str) -> None:
    svg = lift_dots([estimate(2.0, interval)], (-4.0, 4.0), name="a")
    markers = [node for node in ElementTree.fromstring(svg).iter(f"{_SVG}use") if "x" in node.attrib]

    assert any(f"fill: {fill}; stroke: " in node.attrib.get("style", "") for node in markers)


def test_ids_of_two_drawings_differ() -> None:
    ids = [
        {node.attrib["id"] for node in ElementTree.fromstring(svg).iter() if "id" in node.attrib}
        for svg in (lift_dots([estimate(1.0, None)], (-1.0, 2.0), name=name) for name in ("a", "b"))
    ]

    assert ids[0]
    assert not ids[0] & ids[1]


def test_labels_are_text_and_taken_literally() -> None:
    svg = lift_dots([estimate(1.0, None, label="$5 off $10 & <more>")], (-1.0, 2.0), name="a")

    assert "$5 off $10 & <more>" in texts(svg)


def test_long_label_is_broken_and_cut_at_two_lines() -> None:
    svg = lift_dots([estimate(1.0, None, label="a very long surface name " * 4)], (-1.0, 2.0), name="a")

    assert any("…" in text for text in texts(svg))
    assert max(len(text) for text in texts(svg)) < 40


def test_drawing_of_one_day_labels_it() -> None:
    svg = auc_by_day({"click": [(date(2024, 1, 5), 0.6)]}, name="a")

    assert "5 Jan" in texts(svg)
    assert "click" in texts(svg)


def test_calibration_is_drawn_when_nothing_was_observed() -> None:
    svg = calibration_curve({"none": [CalibrationBin(predicted=0.0, observed=0.0, n=5)]}, name="a")

    assert "observed rate" in texts(svg)
