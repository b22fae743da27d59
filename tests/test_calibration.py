"""Platt scaling: hand-worked fits, what it does with little data, storage, and the sampling correction."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from trainers.calibration import (
    IDENTITY,
    MIN_SLOPE,
    PlattCalibrator,
    PlattScale,
    fit_scale,
    sampling_logit_shift,
    sigmoid,
)


def sampled(slope: float, intercept: float, num_rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels whose true calibration is this scale."""
    random = np.random.default_rng(0)
    logits = random.normal(size=num_rows)
    return logits, (random.random(num_rows) < sigmoid(slope * logits + intercept)).astype(np.int64)


def test_fit_finds_the_rate_when_logits_say_nothing() -> None:
    scale = fit_scale(np.zeros(4), np.array([1, 1, 1, 0]), prior_rows=1e-6)
    assert scale.slope == pytest.approx(1.0)
    assert scale.intercept == pytest.approx(math.log(3.0), abs=1e-5)


def test_fit_matches_hand_worked_numbers() -> None:
    # Rates 1/4 at logit -1 and 1/2 at logit 1: intercept and slope are both log(3) / 2 but for sign.
    logits = np.array([-1.0] * 4 + [1.0] * 4)
    scale = fit_scale(logits, np.array([1, 0, 0, 0, 1, 1, 0, 0]), prior_rows=1e-9)
    assert scale.slope == pytest.approx(math.log(3.0) / 2, abs=1e-5)
    assert scale.intercept == pytest.approx(-math.log(3.0) / 2, abs=1e-5)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 1.0), (2.0, -3.0), (1.0, 0.0)])
def test_fit_recovers_the_scale_behind_sampled_labels(slope: float, intercept: float) -> None:
    scale = fit_scale(*sampled(slope, intercept))
    assert scale.slope == pytest.approx(slope, rel=0.1)
    assert scale.intercept == pytest.approx(intercept, abs=0.1)


@pytest.mark.parametrize("label", [0, 1])
def test_fit_stays_finite_with_one_class(label: int) -> None:
    scale = fit_scale(np.linspace(-30.0, 30.0, 50), np.full(50, label))
    assert math.isfinite(scale.slope)
    assert math.isfinite(scale.intercept)


def test_fit_never_turns_the_order_around() -> None:
    logits, labels = sampled(-2.0, 0.5)
    scale = fit_scale(logits, labels)
    assert scale.slope == MIN_SLOPE
    assert sigmoid(scale.slope * logits + scale.intercept).mean() == pytest.approx(labels.mean(), abs=1e-3)


def test_fit_of_few_rows_stays_near_its_prior() -> None:
    prior = PlattScale(slope=0.7, intercept=-2.0)
    scale = fit_scale(np.array([1.0]), np.array([1]), prior, prior_rows=1000.0)
    assert (scale.slope, scale.intercept) == pytest.approx((0.7, -2.0), abs=0.01)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [([0.0, 1.0], [1]), ([0.0, 1.0], [1, 2]), ([0.0, float("nan")], [1, 0]), ([0.0, 1.0], [1.0, float("nan")])],
)
def test_fit_refuses_rows_it_cannot_use(logits: list[float], labels: list[float]) -> None:
    with pytest.raises(ValueError, match="logits must be finite and labels 0 or 1"):
        fit_scale(np.array(logits), np.array(labels))


def test_calibrator_brings_each_surface_to_its_own_rate() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=20_000)
    surfaces = np.where(random.random(20_000) < 0.5, "feed", "search")
    true = sigmoid(logits + np.where(surfaces == "feed", -1.0, 1.0))
    labels = (random.random(20_000) < true).astype(np.int64)
    calibrated = PlattCalibrator.fit(logits, labels, surfaces).calibrate(logits, surfaces)
    for surface in ("feed", "search"):
        chosen = surfaces == surface
        assert calibrated[chosen].mean() == pytest.approx(labels[chosen].mean(), abs=0.005)


def test_calibrator_uses_the_default_for_a_surface_it_has_not_seen() -> None:
    default = PlattScale(slope=1.0, intercept=math.log(3.0))
    calibrator = PlattCalibrator(default=default, surfaces={"feed": IDENTITY})
    found = calibrator.calibrate(np.array([0.0, 0.0]), np.array(["feed", "brand new"]))
    assert found.tolist() == pytest.approx([0.5, 0.75])


def test_calibrator_survives_json() -> None:
    logits, labels = sampled(1.5, -1.0, 500)
    surfaces = np.where(np.arange(500) % 3, "1", "2")
    calibrator = PlattCalibrator.fit(logits, labels, surfaces)
    restored = PlattCalibrator.from_dict(json.loads(json.dumps(calibrator.to_dict())))
    assert restored == calibrator
    np.testing.assert_array_equal(restored.calibrate(logits, surfaces), calibrator.calibrate(logits, surfaces))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"kind": "isotonic"}, "kind must be 'platt' \\(got 'isotonic'\\)"),
        (
            {"kind": "platt", "default": [-1.0, 0.0], "surfaces": {}},
            r"slope must be positive and both finite \(got -1.0",
        ),
        ({"kind": "platt", "default": [1.0, 0.0], "surfaces": {"a": [1.0, float("nan")]}}, "both finite"),
    ],
)
def test_calibrator_refuses_what_it_did_not_write(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlattCalibrator.from_dict(raw)


def test_sampling_shift_undoes_negative_sampling() -> None:
    # A true rate of 1/5 seen with a quarter of the negatives: 1 positive to 1 negative.
    assert sigmoid(np.array([0.0 + sampling_logit_shift(0.25)]))[0] == pytest.approx(0.2)
    assert sampling_logit_shift(1.0) == 0.0


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.5])
def test_sampling_shift_refuses_a_rate_that_is_no_share(rate: float) -> None:
    with pytest.raises(ValueError, match=rf"negative_rate must be in \(0, 1\] \(got {rate}\)"):
        sampling_logit_shift(rate)


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]
