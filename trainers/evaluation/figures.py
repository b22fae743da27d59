"""Figures of the arms on the test days, with paired intervals over users.

Dims: N test rows, S seeds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from trainers.calibration import PlattCalibrator
from trainers.evaluation.arms import ArmResult, RankerJob, user_days
from trainers.metrics import (
    Evaluator,
    Lift,
    ece,
    gauc,
    log_loss,
    paired_bootstrap,
    pr_auc,
    roc_auc,
    roc_auc_evaluator,
)
from trainers.report.schema import Calibration, CalibrationBin, Curve, LiftRow, SliceRow

logger = logging.getLogger(__name__)

RELEASED_FIGURES = ("roc_auc", "pr_auc", "log_loss", "ece")
Floats = npt.NDArray[np.float64]
Points = tuple[tuple[float, float], ...]
CALIBRATION_BINS = 10
MIN_SLICE_ROWS = 500
"""Test rows below which a slice is not shown: its interval would say nothing."""
ACTIVITY_BUCKETS = ((0, 0, "none before"), (1, 4, "1 to 4"), (5, 14, "5 to 14"), (15, None, "15 or more"))
"""Buckets of impressions before: least, most and name."""


class TestRows:
    """Labels and groups of a task's test rows."""

    __test__ = False

    def __init__(self, job: RankerJob) -> None:
        rows = job.split.test
        self.labels = job.data.examples.labels[rows, job.columns()[0]]
        self.users = job.data.user_ids[rows]
        self.user_days = user_days(job.data, rows)
        self.surfaces = job.data.surfaces[rows]
        self.user_impressions = job.data.user_impressions[rows]
        self.pin_impressions = job.data.pin_impressions[rows]


def calibrators(job: RankerJob, result: ArmResult) -> list[PlattCalibrator]:
    """Per-surface calibrators of every seed, fitted on the validation rows."""
    rows = job.split.validation
    labels = job.data.examples.labels[rows, job.columns()[0]]
    return [PlattCalibrator.fit(logits, labels, job.data.surfaces[rows]) for logits in result.validation_logits]


def lift_rows(job: RankerJob, results: Sequence[ArmResult], task: str, ranker: str, samples: int) -> list[LiftRow]:
    """A row per arm, each against the first, which reads no embeddings."""
    test = TestRows(job)
    base = results[0]
    return [_lift_row(job, test, base, result, task, ranker, samples) for result in results]


def _lift_row(
    job: RankerJob, test: TestRows, base: ArmResult, result: ArmResult, task: str, ranker: str, samples: int
) -> LiftRow:
    probabilities = probabilities_of(job, result, test)
    aucs = [roc_auc(test.labels, logits) for logits in result.test_logits]
    row = LiftRow(
        task=task,
        ranker=ranker,
        inputs=result.arm.inputs,
        n_test=len(test.labels),
        roc_auc=float(np.mean(aucs)),
        pr_auc=_mean(pr_auc, test.labels, result.test_logits),
        log_loss=_mean(log_loss, test.labels, probabilities),
        gauc=_gauc(test, result.test_logits),
        ece=_mean(ece, test.labels, probabilities),
        roc_auc_by_seed=tuple(aucs),
    )
    if result is base:
        return row
    base_pr = _mean(pr_auc, test.labels, base.test_logits)
    changed: dict[str, object] = {"pr_auc_lift_pct": 100.0 * (row.pr_auc / base_pr - 1.0)}
    every = np.ones(len(test.labels), np.bool_)
    lift = _lift(test, base, result, every, samples, job.seeds[0])
    base_auc = _mean(roc_auc, test.labels, base.test_logits)
    if lift is None and base_auc > 0.0:
        changed["roc_auc_lift_pct"] = 100.0 * (row.roc_auc / base_auc - 1.0)
    elif lift is not None:
        changed |= {"roc_auc_lift_pct": lift.lift, "roc_auc_lift_ci95": (lift.low, lift.high)}
    return row.model_copy(update=changed)


def _lift(
    test: TestRows, base: ArmResult, result: ArmResult, mask: npt.NDArray[np.bool_], samples: int, seed: int
) -> Lift | None:
    """Lift on some of the test rows; none where too few users have positives, or negatives, for an interval."""
    scores = base.test_logits[:, mask], result.test_logits[:, mask]
    try:
        return roc_auc_lift(test.labels[mask], *scores, test.users[mask], samples, seed)
    except ValueError as error:
        logger.warning("no_lift inputs=%s rows=%d reason=%r", result.arm.inputs, int(mask.sum()), str(error))
        return None


def released_figures(name: str, row: LiftRow) -> dict[str, float]:
    """What the manifest of a release says of a ranker on the test days, by name, such as `pctr_roc_auc`."""
    return {f"{name}_{each}": getattr(row, each) for each in RELEASED_FIGURES}


def probabilities_of(job: RankerJob, result: ArmResult, test: TestRows) -> Floats:
    """Calibrated probabilities [S, N] on the test rows."""
    pairs = zip(calibrators(job, result), result.test_logits, strict=True)
    return np.stack([calibrator.calibrate(logits, test.surfaces) for calibrator, logits in pairs])


def _mean(metric: Callable[..., float], labels: npt.NDArray[np.float32], scores: npt.NDArray[np.floating]) -> float:
    """Mean of a metric over seeds."""
    return float(np.mean([metric(labels, each) for each in scores]))


def _gauc(test: TestRows, logits: npt.NDArray[np.float32]) -> float | None:
    try:
        return float(np.mean([gauc(test.labels, each, test.user_days) for each in logits]))
    except ValueError:
        return None


def roc_auc_lift(
    labels: npt.NDArray[np.float32],
    base: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    users: npt.NDArray[np.int64],
    samples: int,
    seed: int,
) -> Lift:
    """Relative ROC-AUC lift of the mean over seeds, with an interval over users.

    Args:
        base: Scores [S, N] without embeddings.
        scores: Scores [S, N] of the same seeds with them.
    """
    return paired_bootstrap(labels, base, scores, users, metric=_mean_auc, num_samples=samples, seed=seed)


def _mean_auc(labels: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> Evaluator:
    evaluators = [roc_auc_evaluator(labels, each) for each in scores]
    return lambda weights: float(np.mean([evaluate(weights) for evaluate in evaluators]))


def calibration_rows(job: RankerJob, result: ArmResult, task: str, ranker: str) -> Calibration:
    """Predicted against observed rate of the first seed, in bins of equal count."""
    test = TestRows(job)
    predicted = probabilities_of(job, result, test)[0]
    parts = np.array_split(np.argsort(predicted, kind="stable"), CALIBRATION_BINS)
    bins = tuple(
        CalibrationBin(predicted=float(predicted[part].mean()), observed=float(test.labels[part].mean()), n=len(part))
        for part in parts
        if len(part)
    )
    return Calibration(task=task, ranker=ranker, inputs=result.arm.inputs, bins=bins)


def curves_of(job: RankerJob, result: ArmResult, task: str, ranker: str) -> Curve:
    """ROC and precision-recall curve of the first seed."""
    test = TestRows(job)
    roc, precision_recall = curve_points(test.labels, result.test_logits[0])
    return Curve(task=task, ranker=ranker, inputs=result.arm.inputs, roc=roc, precision_recall=precision_recall)


def curve_points(
    labels: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], num_points: int = 50
) -> tuple[Points, Points]:
    """Points of the ROC curve and of the precision-recall curve, at even steps of the positives found.

    Rows with equal scores enter together.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    found = np.cumsum(labels[order], dtype=np.float64)[last]
    shown, positives = last + 1.0, found[-1]
    recall, false_rate = found / positives, (shown - found) / (len(labels) - positives)
    wanted = np.unique(np.searchsorted(recall, np.linspace(1.0 / num_points, 1.0, num_points)).clip(0, len(last) - 1))
    roc = [(0.0, 0.0), *((_short(false_rate[at]), _short(recall[at])) for at in wanted), (1.0, 1.0)]
    precision_recall = [(_short(recall[at]), _short(found[at] / shown[at])) for at in wanted]
    return tuple(roc), tuple(precision_recall)


def _short(value: float) -> float:
    return round(float(value), 4)


def slice_rows(job: RankerJob, base: ArmResult, result: ArmResult, task: str, samples: int) -> list[SliceRow]:
    """Lift by surface, for new and known users and Pins, and by how many impressions they had before."""
    test = TestRows(job)
    masks: list[tuple[str, str, npt.NDArray[np.bool_]]] = [
        ("surface", str(surface), test.surfaces == surface) for surface in np.unique(test.surfaces)
    ]
    for name, counts in (("user_activity", test.user_impressions), ("pin_activity", test.pin_impressions)):
        masks += [
            (f"new_or_known_{name.partition('_')[0]}", "new", counts == 0),
            (f"new_or_known_{name.partition('_')[0]}", "known", counts > 0),
        ]
        for least, most, label in ACTIVITY_BUCKETS:
            masks.append((name, label, (counts >= least) & (counts <= most if most is not None else True)))
    rows = []
    for name, value, mask in masks:
        labels = test.labels[mask]
        if len(labels) < MIN_SLICE_ROWS or min(labels.sum(), len(labels) - labels.sum()) < 20:
            continue
        lift = _lift(test, base, result, mask, samples, job.seeds[0])
        if lift is None:
            continue
        rows.append(
            SliceRow(
                task=task,
                slice=name,
                value=value,
                n_test=len(labels),
                roc_auc_base=_mean(roc_auc, labels, base.test_logits[:, mask]),
                roc_auc=_mean(roc_auc, labels, result.test_logits[:, mask]),
                lift_pct=lift.lift,
                ci95=(lift.low, lift.high),
                inputs=result.arm.inputs,
            )
        )
    return rows
