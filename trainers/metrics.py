"""Metrics of rankers and of retrieval, and confidence intervals over users.

Each ranker metric is an evaluator: built once on labels and scores (which sorts), then called with row weights as often
as a bootstrap needs. The plain functions are the evaluators under equal weights. Sums are not written as dot products:
BLAS would start threads for each, which costs more than the sum.

Source: weighted ROC-AUC as the Mann-Whitney statistic (Fawcett, 2006); PR-AUC as average precision; normalised entropy
from He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014; gAUC from Zhu et
al., "Optimized Cost per Click in Taobao Display Advertising", arXiv:1703.02091.
Dims: N rows, G groups, U users, K ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
Evaluator = Callable[[Floats], float]
"""Value of a metric under one weight a row, not negative; NaN where the weights leave it undefined."""
Metric = Callable[[Array, Array], Evaluator]
"""Builds an evaluator from labels and scores."""


def check_binary(labels: Array, scores: Array) -> None:
    """Refuse labels and scores no ranker metric is defined on.

    Raises:
        ValueError: Shapes differ, values other than 0 and 1 or scores that are not finite, or only one class.
    """
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels and scores must be rows of one length (got shapes {labels.shape}, {scores.shape})")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite (got {int((~np.isfinite(scores)).sum())} that are not)")
    if not np.isin(labels, (0, 1)).all():
        odd = np.unique(labels[~np.isin(labels, (0, 1))])[:3].tolist()
        raise ValueError(f"labels must be 0 or 1 (got {odd}); drop rows where the task is not defined")
    num_positive = int(labels.sum())
    if num_positive in (0, len(labels)):
        raise ValueError(f"labels must hold both classes (got {num_positive} positive of {len(labels)} rows)")


def roc_auc_evaluator(labels: Array, scores: Array) -> Evaluator:
    """Chance that a positive outscores a negative, ties half; see `check_binary` for what is refused."""
    check_binary(labels, scores)
    positives, negatives = _ascending(labels == 1, scores), _ascending(labels == 0, scores)
    below = np.searchsorted(scores[negatives], scores[positives], side="left")
    not_above = np.searchsorted(scores[negatives], scores[positives], side="right")

    def evaluate(weights: Floats) -> float:
        positive_weights = weights[positives]
        beaten = np.concatenate([[0.0], np.cumsum(weights[negatives])])
        total = positive_weights.sum() * beaten[-1]
        won = 0.5 * (positive_weights * (beaten[below] + beaten[not_above])).sum()
        return float(won / total) if total else float("nan")

    return evaluate


def pr_auc_evaluator(labels: Array, scores: Array) -> Evaluator:
    """Average precision: precision at each threshold, weighted by the recall gained there."""
    check_binary(labels, scores)
    positives, negatives = _ascending(labels == 1, -scores), _ascending(labels == 0, -scores)
    thresholds = -scores[positives]
    positives_shown = np.searchsorted(thresholds, thresholds, side="right") - 1
    negatives_shown = np.searchsorted(-scores[negatives], thresholds, side="right")

    def evaluate(weights: Floats) -> float:
        positive_weights = weights[positives]
        right = np.cumsum(positive_weights)[positives_shown]
        wrong = np.concatenate([[0.0], np.cumsum(weights[negatives])])[negatives_shown]
        precision = np.divide(right, right + wrong, out=np.zeros_like(right), where=right > 0)
        total = positive_weights.sum()
        return float((positive_weights * precision).sum() / total) if total else float("nan")

    return evaluate


def log_loss_evaluator(labels: Array, probabilities: Array) -> Evaluator:
    """Mean cross-entropy in nats; probabilities are kept 1e-7 away from 0 and 1."""
    check_binary(labels, probabilities)
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    losses = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))
    return lambda weights: float((losses * weights).sum() / weights.sum()) if weights.any() else float("nan")


def gauc_evaluator(groups: Array) -> Metric:
    """Metric: ROC-AUC inside each group, averaged by the groups' rows; groups with one class are left out.

    Group by user *and day*: grouped by user alone over several days it rewards scores that merely drift with time.
    Under bootstrap weights a group counts by its mean weight, so `groups` must not straddle the resampled units.
    """

    def build(labels: Array, scores: Array) -> Evaluator:
        check_binary(labels, scores)
        values, group_of_row = _group_aucs(labels, scores, groups)
        sizes = np.bincount(group_of_row, minlength=len(values))
        scored = np.isfinite(values)
        if not scored.any():
            raise ValueError(
                f"some group must hold both classes (got none in {len(values)} groups); group more coarsely"
            )

        def evaluate(weights: Floats) -> float:
            mass = np.bincount(group_of_row, weights, minlength=len(sizes))[scored]
            return float((mass * values[scored]).sum() / mass.sum()) if mass.any() else float("nan")

        return evaluate

    return build


def _group_aucs(labels: Array, scores: Array, groups: Array) -> tuple[Floats, Array]:
    """AUC of each group, NaN where it has one class, and each row's group; all groups from one sort."""
    _, group_of_row = np.unique(groups, return_inverse=True)
    order = np.lexsort((scores, group_of_row))
    group, score, positive = group_of_row[order], scores[order], labels[order] == 1
    new = np.r_[True, (group[1:] != group[:-1]) | (score[1:] != score[:-1])]
    starts = np.flatnonzero(new)
    positives = np.add.reduceat(positive.astype(np.float64), starts)
    negatives = np.add.reduceat((~positive).astype(np.float64), starts)
    tie_group = group[starts]
    num_groups = int(group[-1]) + 1
    group_positives = np.bincount(tie_group, positives, minlength=num_groups)
    group_negatives = np.bincount(tie_group, negatives, minlength=num_groups)
    before = np.cumsum(group_negatives) - group_negatives
    below = np.cumsum(negatives) - 0.5 * negatives - before[tie_group]
    pairs = group_positives * group_negatives
    won = np.bincount(tie_group, positives * below, minlength=num_groups)
    values = np.divide(won, pairs, out=np.full(num_groups, np.nan), where=pairs > 0)
    return values, group_of_row


def _ascending(chosen: npt.NDArray[np.bool_], scores: Array) -> Array:
    """Chosen rows in order of their scores."""
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(scores[rows], kind="stable")]


def _ones(labels: Array) -> Floats:
    return np.ones(len(labels))


def roc_auc(labels: Array, scores: Array) -> float:
    """ROC-AUC; raises `ValueError` as `check_binary` does."""
    return roc_auc_evaluator(labels, scores)(_ones(labels))


def pr_auc(labels: Array, scores: Array) -> float:
    """Average precision; raises `ValueError` as `check_binary` does."""
    return pr_auc_evaluator(labels, scores)(_ones(labels))


def log_loss(labels: Array, probabilities: Array) -> float:
    """Mean cross-entropy in nats; raises `ValueError` as `check_binary` does."""
    return log_loss_evaluator(labels, probabilities)(_ones(labels))


def gauc(labels: Array, scores: Array, groups: Array) -> float:
    """Grouped ROC-AUC, see `gauc_evaluator`."""
    return gauc_evaluator(groups)(labels, scores)(_ones(labels))


def normalised_entropy(labels: Array, probabilities: Array) -> float:
    """Log loss over that of always answering the base rate: below 1 is better than knowing nothing."""
    base_rate = np.full(len(labels), labels.mean())
    return log_loss(labels, probabilities) / log_loss(labels, base_rate)


def ece(labels: Array, probabilities: Array, num_bins: int = 15) -> float:
    """Expected calibration error over bins of equal count.

    Rows are sorted by probability and cut into `num_bins` parts whose sizes differ by at most one; the error is the
    mean over rows of |mean probability − positive rate| of the row's bin. Bins of equal width would leave nearly all
    rows of a rare label in the first bin.
    """
    check_binary(labels, probabilities)
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1 (got {num_bins})")
    order = np.argsort(probabilities, kind="stable")
    gaps = (probabilities[order].astype(np.float64) - labels[order]).cumsum()
    ends = np.linspace(0, len(labels), min(num_bins, len(labels)) + 1).astype(np.int64)[1:] - 1
    return float(np.abs(np.diff(gaps[ends], prepend=0.0)).sum() / len(labels))


def ece_by_chance(probabilities: Array, num_bins: int = 15, num_draws: int = 20, seed: int = 0) -> float:
    """Calibration error that these probabilities would show if they were the true ones, mean over drawn labels.

    With few rows in a bin, its rate of positives differs from the truth by chance alone: on 500 rows at a rate of a
    half, by .07 on average. An error is to be read against this.

    Raises:
        ValueError: No draw has labels of both classes.
    """
    random = np.random.default_rng(seed)
    draws = [(random.random(len(probabilities)) < probabilities).astype(np.float64) for _ in range(num_draws)]
    both = [labels for labels in draws if 0 < labels.sum() < len(labels)]
    if not both:
        raise ValueError(f"labels drawn from {len(probabilities)} probabilities must hold both classes (got none)")
    return float(np.mean([ece(labels, probabilities, num_bins) for labels in both]))


def recall_at_k(ranked: Array, relevant: Sequence[Collection[int]], k: int) -> Floats:
    """Share of each user's relevant Pins among the first k, [U].

    Args:
        ranked: Pin keys, best first, [U, at least k]; -1 where nothing was retrieved.
        relevant: Each user's relevant Pins, at least one.

    Raises:
        ValueError: k is outside 1..K, a user has no relevant Pin, or a ranking repeats a Pin.
    """
    found = _found(ranked, relevant, k)
    recalls: Floats = found.sum(axis=1) / np.array([len(set(pins)) for pins in relevant])
    return recalls


def ndcg_at_k(ranked: Array, relevant: Sequence[Collection[int]], k: int) -> Floats:
    """Discounted gain of the first k over the best possible, binary relevance, [U]; arguments as in `recall_at_k`."""
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    gains = _found(ranked, relevant, k) @ discounts
    best = np.cumsum(discounts)[[min(len(set(pins)), k) - 1 for pins in relevant]]
    ndcg: Floats = gains / best
    return ndcg


def _found(ranked: Array, relevant: Sequence[Collection[int]], k: int) -> npt.NDArray[np.bool_]:
    """Whether each of the first k is relevant, [U, K]."""
    if ranked.ndim != 2 or len(ranked) != len(relevant):
        raise ValueError(f"ranked must be [{len(relevant)}, K], a row per user (got shape {ranked.shape})")
    if not 1 <= k <= ranked.shape[1]:
        raise ValueError(f"k must be in 1..{ranked.shape[1]}, the ranking's width (got {k})")
    empty = [user for user, pins in enumerate(relevant) if len(pins) == 0]
    if empty:
        raise ValueError(f"every user needs a relevant Pin (got none in rows {empty[:5]}); leave those users out")
    first = ranked[:, :k]
    in_order = np.sort(first, axis=1)
    if ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).any():
        raise ValueError("a ranking must not repeat a Pin; remove duplicates before scoring")
    found = [np.isin(row, list(pins)) for row, pins in zip(first, relevant, strict=True)]
    return np.stack(found) & (first >= 0)


class Lift(NamedTuple):
    """Relative difference of b over a in percent, with a 95 % interval; of a loss, less than 0 is better."""

    lift: float
    low: float
    high: float


METRICS: dict[str, Metric] = {
    "roc_auc": roc_auc_evaluator,
    "pr_auc": pr_auc_evaluator,
    "log_loss": log_loss_evaluator,
}
"""Ranker metrics by the name they have in reports; gAUC needs groups: pass `gauc_evaluator(groups)`."""


MIN_GROUPS = 10
"""Users with positives, and with negatives, below which resampling them says nothing of others."""


def check_groups(labels: Array, groups: Array) -> None:
    """Raise `ValueError` where too few groups have positives, or negatives, for an interval over them."""
    positives, negatives = (len(np.unique(groups[labels == value])) for value in (1, 0))
    if min(positives, negatives) < MIN_GROUPS:
        raise ValueError(
            f"an interval needs at least {MIN_GROUPS} users with positives and as many with negatives "
            f"(got {positives} and {negatives}); add test days or users"
        )


def paired_bootstrap_means(values_a: Array, values_b: Array, num_samples: int = 1000, seed: int = 0) -> Lift:
    """Lift of the mean of b over that of a, one value per user and model (recall, nDCG)."""
    random = np.random.default_rng(seed)
    stacked = np.stack([values_a, values_b], axis=1)
    users = len(stacked)
    draws = np.stack([stacked[random.integers(users, size=users)].mean(axis=0) for _ in range(num_samples)])
    mean_a, mean_b = stacked.mean(axis=0)
    return lift_of(float(mean_a), float(mean_b), draws)


def bootstrap_mean(values: Array, num_samples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Mean over users and its 95 % interval: mean, low, high."""
    random = np.random.default_rng(seed)
    draws = [values[random.integers(len(values), size=len(values))].mean() for _ in range(num_samples)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def resamples(groups: Array, num_samples: int, seed: int) -> Iterator[Floats]:
    """Row weights of each resample: how often the row's group was drawn."""
    random = np.random.default_rng(seed)
    unique, group_of_row = np.unique(groups, return_inverse=True)
    for _ in range(num_samples):
        drawn = np.bincount(random.integers(len(unique), size=len(unique)), minlength=len(unique))
        yield drawn.astype(np.float64)[group_of_row]


def lift_of(value_a: float, value_b: float, draws: Floats) -> Lift:
    """Lift of b over a; its interval from values [R, 2] of a and b on resamples.

    Raises:
        ValueError: The value of a is 0, or most resamples leave one of them undefined.
    """
    if value_a == 0.0:
        raise ValueError("a lift needs a value above 0 to compare with (got 0.0 for a); report the difference instead")
    defined = draws[np.isfinite(draws).all(axis=1) & (draws[:, 0] != 0.0)]
    if 2 * len(defined) < len(draws):
        raise ValueError(
            f"the metric must be defined on most resamples (got {len(defined)} of {len(draws)}); add users"
        )
    low, high = np.quantile(100.0 * (defined[:, 1] / defined[:, 0] - 1.0), (0.025, 0.975))
    return Lift(100.0 * (value_b / value_a - 1.0), float(low), float(high))
