"""Calibrated probabilities from logits: Platt scaling per surface, and the prior correction for negative sampling.

Source: Platt, "Probabilistic Outputs for Support Vector Machines", 1999; re-calibration after negative downsampling
from He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, section 6.3.
Dims: N rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

MIN_SLOPE = 0.05
"""Slopes stay above this, so that calibration never changes the order inside a surface."""
_MAX_STEPS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class PlattScale:
    """p = sigmoid(slope · logit + intercept)."""

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope > 0.0):
            raise ValueError(f"slope must be positive and both finite (got {self.slope}, {self.intercept})")


IDENTITY = PlattScale(slope=1.0, intercept=0.0)


def fit_scale(logits: Array, labels: Array, prior: PlattScale = IDENTITY, prior_rows: float = 1.0) -> PlattScale:
    """Scale that maximises the labels' likelihood times a normal prior, by Newton's method.

    Args:
        labels: 0 or 1; one class alone is fine, the prior then keeps the answer finite.
        prior: Centre of the prior.
        prior_rows: Weight of the prior, as the information of this many rows at a rate of one half.

    Raises:
        ValueError: Shapes differ, labels are not 0 or 1, logits are not finite, or `prior_rows` is not positive.
    """
    if logits.shape != labels.shape or not np.isin(labels, (0, 1)).all() or not np.isfinite(logits).all():
        raise ValueError(
            f"logits must be finite and labels 0 or 1, of one shape (got shapes {logits.shape}, {labels.shape}); "
            "drop rows where the task is not defined"
        )
    if prior_rows <= 0.0:
        raise ValueError(f"prior_rows must be positive (got {prior_rows})")
    design = np.stack([logits.astype(np.float64), np.ones(len(logits))], axis=1)
    centre = np.array([prior.slope, prior.intercept])
    slope, intercept = _newton(design, labels.astype(np.float64), centre, 0.25 * prior_rows)
    if slope < MIN_SLOPE:
        held = MIN_SLOPE * design[:, 0]
        slope, intercept = MIN_SLOPE, float(_newton(design[:, 1:], labels, centre[1:], 0.25 * prior_rows, held)[0])
    return PlattScale(slope=float(slope), intercept=float(intercept))


def _newton(design: Floats, labels: Array, centre: Floats, precision: float, offset: Floats | float = 0.0) -> Floats:
    """Coefficients at the maximum; steps are halved while they would lose likelihood."""

    def loss(at: Floats) -> float:
        logits = design @ at + offset
        fit = np.logaddexp(0.0, logits) - labels * logits
        return float(fit.sum() + 0.5 * precision * ((at - centre) ** 2).sum())

    solution = centre.copy()
    current = loss(solution)
    for _ in range(_MAX_STEPS):
        rates = sigmoid(design @ solution + offset)
        gradient = design.T @ (rates - labels) + precision * (solution - centre)
        hessian = (design * (rates * (1.0 - rates))[:, None]).T @ design + precision * np.eye(len(centre))
        step = np.linalg.solve(hessian, gradient)
        while (after := loss(solution - step)) > current and np.abs(step).max() > 1e-10:
            step *= 0.5
        solution, gain, current = solution - step, current - after, after
        if gain < 1e-9 * (1.0 + abs(current)):
            break
    return solution


def sigmoid(logits: Array) -> Floats:
    """Probability of each logit, without overflow at either end."""
    values: Floats = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return values


@dataclass(frozen=True, kw_only=True, slots=True)
class PlattCalibrator:
    """A scale for each surface, and one for surfaces that were not seen."""

    default: PlattScale
    """Fitted on all surfaces together."""
    surfaces: Mapping[str, PlattScale]
    """Fitted on one surface each, pulled towards `default`."""

    @classmethod
    def fit(cls, logits: Array, labels: Array, surfaces: Array, prior_rows: float = 200.0) -> PlattCalibrator:
        """Calibrator fitted on validation rows that the model was not trained on.

        Args:
            labels: 0 or 1.
            surfaces: Name of each row's surface.
            prior_rows: Rows with which the pull towards `default` weighs on each surface.

        Raises:
            ValueError: As in `fit_scale`.
        """
        default = fit_scale(logits, labels)
        names = surfaces.astype(str)
        scales = {
            str(name): fit_scale(logits[names == name], labels[names == name], default, prior_rows)
            for name in np.unique(names)
        }
        return cls(default=default, surfaces=scales)

    def calibrate(self, logits: Array, surfaces: Array) -> Floats:
        """Calibrated probability of each row."""
        unique, inverse = np.unique(surfaces.astype(str), return_inverse=True)
        scales = [self.surfaces.get(str(name), self.default) for name in unique]
        slopes = np.array([scale.slope for scale in scales])
        intercepts = np.array([scale.intercept for scale in scales])
        return sigmoid(slopes[inverse] * logits + intercepts[inverse])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: kind `platt`, and [slope, intercept] under `default` and for each name in `surfaces`."""
        surfaces = {name: [scale.slope, scale.intercept] for name, scale in sorted(self.surfaces.items())}
        return {"kind": "platt", "default": [self.default.slope, self.default.intercept], "surfaces": surfaces}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> PlattCalibrator:
        """Calibrator read back from `to_dict`.

        Raises:
            ValueError: Another kind of calibrator, or a scale that is not positive and finite.
        """
        if raw.get("kind") != "platt":
            raise ValueError(f"kind must be 'platt' (got {raw.get('kind')!r})")
        surfaces = {name: PlattScale(slope=a, intercept=b) for name, (a, b) in raw["surfaces"].items()}
        slope, intercept = raw["default"]
        return cls(default=PlattScale(slope=slope, intercept=intercept), surfaces=surfaces)


def sampling_logit_shift(negative_rate: float) -> float:
    """What to add to the logit of a model that was trained with only this share of the negatives, in (0, 1].

    Keeping a share r of the negatives multiplies the odds by 1 / r, so the shift is log r.
    """
    if not 0.0 < negative_rate <= 1.0:
        raise ValueError(f"negative_rate must be in (0, 1] (got {negative_rate})")
    return math.log(negative_rate)
