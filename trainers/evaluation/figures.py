"""Figures of the arms on the test days, with paired intervals over users.

Dims: N test rows, S seeds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trainers.calibration import PlattCalibrator
from trainers.evaluation.arms import RankerJob, Scored, user_days
from trainers.metrics import (
    METRICS,
    Lift,
    Metric,
    check_groups,
    ece,
    gauc_evaluator,
    log_loss,
    normalised_entropy,
    roc_auc_evaluator,
)
from trainers.report.schema import Calibration, CalibrationBin, Curve, LiftRow
from trainers.resampling import Resampled, lift_over_users, lift_over_users_and_seeds, resampled

logger = logging.getLogger(__name__)

RELEASED_FIGURES = ("roc_auc", "pr_auc", "log_loss", "ece")
Floats = npt.NDArray[np.float64]
Points = tuple[tuple[float, float], ...]
CALIBRATION_BINS = 10


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


def calibrators(job: RankerJob, result: Scored) -> list[PlattCalibrator]:
    """Per-surface calibrators of every seed, fitted on the validation rows."""
    rows = job.split.validation
    labels = job.data.examples.labels[rows, job.columns()[0]]
    return [PlattCalibrator.fit(logits, labels, job.data.surfaces[rows]) for logits in result.validation_logits]


def lift_rows(job: RankerJob, results: Sequence[Scored], task: str, ranker: str, samples: int) -> list[LiftRow]:
    """A row per arm, each against the first, which reads no embeddings; all on the same resampled users."""
    test = TestRows(job)
    metrics = _metrics(test, results[0])
    evaluators = [
        [build(test.labels, logits) for logits in result.test_logits]
        for result in results
        for build in metrics.values()
    ]
    found = iter(resampled(evaluators, test.users, samples, job.seeds[0]))
    by_arm = [{name: next(found) for name in metrics} for _ in results]
    first, *others = [
        (_row(job, test, result, each, task, ranker), each) for result, each in zip(results, by_arm, strict=True)
    ]
    lifts = _lifts if others and _can_be_judged(test) else _bare_lifts
    changed = [row.model_copy(update=lifts(by_arm[0], each, row.inputs, job.seeds[0])) for row, each in others]
    return [first[0], *changed]


def _can_be_judged(test: TestRows) -> bool:
    """Whether enough users have either label for an interval over them."""
    try:
        check_groups(test.labels, test.users)
    except ValueError as error:
        logger.warning("no_intervals rows=%d reason=%r", len(test.labels), str(error))
        return False
    return True


def _metrics(test: TestRows, base: Scored) -> dict[str, Metric]:
    """Metrics with a lift; gAUC where some user saw both outcomes on one day."""
    metrics = {name: METRICS[name] for name in ("roc_auc", "pr_auc")}
    by_user_day = gauc_evaluator(test.user_days)
    try:
        by_user_day(test.labels, base.test_logits[0])
    except ValueError:
        return metrics
    return metrics | {"gauc": by_user_day}


def _row(
    job: RankerJob, test: TestRows, result: Scored, found: Mapping[str, Resampled], task: str, ranker: str
) -> LiftRow:
    probabilities = probabilities_of(job, result, test)
    aucs = found["roc_auc"].values
    return LiftRow(
        task=task,
        ranker=ranker,
        inputs=result.arm.inputs,
        n_test=len(test.labels),
        roc_auc=float(aucs.mean()),
        pr_auc=float(found["pr_auc"].values.mean()),
        log_loss=mean_of(log_loss, test.labels, probabilities),
        normalised_entropy=mean_of(normalised_entropy, test.labels, probabilities),
        gauc=float(found["gauc"].values.mean()) if "gauc" in found else None,
        ece=mean_of(ece, test.labels, probabilities),
        roc_auc_by_seed=tuple(aucs.tolist()),
        setting=result.setting,
    )


def _bare_lifts(
    base: Mapping[str, Resampled], found: Mapping[str, Resampled], inputs: str, seed: int
) -> dict[str, object]:
    """Lift of each metric without an interval."""
    del inputs, seed
    means = {name: (float(base[name].values.mean()), float(each.values.mean())) for name, each in found.items()}
    return {f"{name}_lift_pct": 100.0 * (other / own - 1.0) for name, (own, other) in means.items() if own > 0.0}


def _lifts(base: Mapping[str, Resampled], found: Mapping[str, Resampled], inputs: str, seed: int) -> dict[str, object]:
    """Lift of each metric with its interval over users, that of ROC-AUC over users and seeds too."""
    changed: dict[str, object] = {}
    for name, each in found.items():
        try:
            lift = lift_over_users(base[name], each)
            changed |= {f"{name}_lift_pct": lift.lift, f"{name}_lift_ci95": (lift.low, lift.high)}
            with_seeds = lift_over_users_and_seeds(base[name], each, seed) if name == "roc_auc" else None
        except ValueError as error:
            logger.warning("no_lift inputs=%s metric=%s reason=%r", inputs, name, str(error))
            continue
        if with_seeds is not None:
            changed["roc_auc_lift_seeds_ci95"] = (with_seeds.low, with_seeds.high)
    return changed


def lift_on(
    test: TestRows, base: Scored, result: Scored, mask: npt.NDArray[np.bool_], samples: int, seed: int
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


def probabilities_of(job: RankerJob, result: Scored, test: TestRows) -> Floats:
    """Calibrated probabilities [S, N] on the test rows."""
    pairs = zip(calibrators(job, result), result.test_logits, strict=True)
    return np.stack([calibrator.calibrate(logits, test.surfaces) for calibrator, logits in pairs])


def mean_of(metric: Callable[..., float], labels: npt.NDArray[np.float32], scores: npt.NDArray[np.floating]) -> float:
    """Mean of a metric over seeds."""
    return float(np.mean([metric(labels, each) for each in scores]))


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

    Raises:
        ValueError: Too few users have positives, or negatives, for an interval over them.
    """
    check_groups(labels, users)
    evaluators = [[roc_auc_evaluator(labels, each) for each in side] for side in (base, scores)]
    return lift_over_users(*resampled(evaluators, users, samples, seed))


def calibration_rows(job: RankerJob, result: Scored, task: str, ranker: str) -> Calibration:
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


def curves_of(job: RankerJob, result: Scored, task: str, ranker: str) -> Curve:
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
