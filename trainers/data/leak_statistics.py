"""Figures that give away a feature which knows the labels it is meant to predict.

Dims: N rows, G groups of rows that share an entity and a feature value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

_NUM_SPLITS = 3
_NUM_RESAMPLES = 200
_NUM_FOLDS = 5
_RIDGE = 0.01
_MAX_GROUPS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Excess:
    """By how much a figure passes the bound that an innocent feature obeys."""

    figure: float
    bound: float
    deviations: float
    """Distance from the bound in bootstrap standard errors."""
    num_groups: int


def roc_auc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Probability that a positive row scores above a negative one, ties counted half."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    smallest = num_positive * (num_positive + 1) / 2
    return float((ranks[positive].sum() - smallest) / (num_positive * num_negative))


def noise_excess(entities: Integers, values: Floats, labels: Floats, *, min_rows: int, seed: int) -> Excess | None:
    """How much more of the observed label rates a feature explains than anything innocent of the labels can.

    Rows of one entity with one value of the feature form a group; its observed rate is a true rate plus the luck of
    these very rows. Random halves of a group share the true rate and not the luck, so the covariance of the halves
    is the variance of the true rates, and its share of the variance of the observed rates bounds the squared
    correlation of any feature that was made without these labels. A feature computed from them passes the bound.

    Returns:
        The squared correlation against the bound, from one split and without deviations where it stays below;
        none with fewer than 50 groups of `min_rows` rows.
    """
    rng = np.random.default_rng(seed)
    groups = _group_codes(entities, values)
    sizes = np.bincount(groups)
    kept = np.flatnonzero(sizes >= min_rows)[:_MAX_GROUPS]
    if len(kept) < 50:
        return None
    feature = np.zeros(len(sizes))
    feature[groups] = values
    scales = (feature[kept], _ranks(feature[kept]))
    screened = [_halves(groups, sizes, labels, rng)[:, kept]]
    best = max((_explained(scale, screened) for scale in scales), key=lambda found: found.figure - found.bound)
    if best.figure <= best.bound:
        return best
    halves = [_halves(groups, sizes, labels, rng)[:, kept] for _ in range(_NUM_SPLITS)]
    return max((_explained(scale, halves, rng) for scale in scales), key=lambda found: found.figure - found.bound)


def outlook_excess(
    entities: Integers, times: Integers, features: Floats, labels: Floats, *, min_rows: int, seed: int
) -> Excess | None:
    """How much more an entity's fixed features tell about its later label rates than its earlier label rates do.

    Numbers gathered over the whole period know the later half as well as the earlier one, and often from far more
    rows than ours. Also true of an innocent feature that is simply very good, so this is grounds to ask, no proof.

    Args:
        features: [N, F], the same for every row of an entity; NaN where null.

    Returns:
        Out-of-fold correlation of a ridge on the features with the later rates, against the correlation of the
        earlier rates with them; none with fewer than 100 entities that have `min_rows` rows in both halves.
    """
    _, codes = np.unique(entities, return_inverse=True)
    late = times >= np.median(times)
    num_early, num_late = (np.bincount(codes[part], minlength=codes.max() + 1) for part in (~late, late))
    kept = np.flatnonzero((num_early >= min_rows) & (num_late >= min_rows))
    if len(kept) < 100:
        return None
    early, later = (
        np.bincount(codes[part], labels[part], minlength=codes.max() + 1)[kept] / count[kept]
        for part, count in ((~late, num_early), (late, num_late))
    )
    rng = np.random.default_rng(seed)
    known = np.zeros((codes.max() + 1, features.shape[1]))
    known[codes] = features
    predicted = _out_of_fold(_design(known[kept]), later, rng)
    return _better(predicted, early, later, rng)


def _group_codes(entities: Integers, values: Floats) -> Integers:
    distinct, code = np.unique(values, return_inverse=True)
    _, entity = np.unique(entities, return_inverse=True)
    _, groups = np.unique(entity * len(distinct) + code, return_inverse=True)
    return np.asarray(groups, dtype=np.int64)


def _halves(groups: Integers, sizes: Integers, labels: Floats, rng: np.random.Generator) -> Floats:
    """Label rates of two random halves of each group, [2, G]; an odd row is left out."""
    half = sizes // 2
    shuffled = rng.permutation(len(groups))
    order = shuffled[np.argsort(groups[shuffled], kind="stable")]
    group = groups[order]
    place = np.arange(len(groups)) - (np.cumsum(sizes) - sizes)[group]
    part = place // np.maximum(half[group], 1)
    sums = [np.bincount(group[part == i], labels[order][part == i], minlength=len(sizes)) for i in range(2)]
    return np.stack(sums) / np.maximum(half, 1)


def _explained(feature: Floats, halves: list[Floats], rng: np.random.Generator | None = None) -> Excess:
    """Squared correlation of a feature with the rates against the share of their variance that is no luck."""

    def figures(weights: Floats) -> tuple[float, float]:
        squared, share = [], []
        for one, other in halves:
            rates = (one + other) / 2
            squared.append(_correlation(feature, rates, weights) ** 2)
            share.append(_covariance(one, other, weights) / max(_covariance(rates, rates, weights), 1e-12))
        return float(np.mean(squared)), float(np.mean(share))

    figure, bound = figures(np.ones(len(feature)))
    excess = figure - bound
    spread = (
        1.0 if rng is None else _bootstrap(lambda weights: float(np.subtract(*figures(weights))), len(feature), rng)
    )
    return Excess(
        figure=figure, bound=bound, deviations=0.0 if rng is None else excess / spread, num_groups=len(feature)
    )


def _better(predicted: Floats, early: Floats, later: Floats, rng: np.random.Generator) -> Excess:
    def gain(weights: Floats) -> float:
        return _correlation(predicted, later, weights) - _correlation(early, later, weights)

    ones = np.ones(len(later))
    spread = _bootstrap(gain, len(later), rng)
    return Excess(
        figure=_correlation(predicted, later, ones),
        bound=_correlation(early, later, ones),
        deviations=gain(ones) / spread,
        num_groups=len(later),
    )


def _design(features: Floats) -> Floats:
    """Each feature and its logarithm, standardised; null is average."""
    both = np.concatenate([features, np.sign(features) * np.log1p(np.abs(features))], axis=1)
    known = np.isfinite(both)
    filled = np.where(known, both, 0.0)
    mean = filled.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, both - mean, 0.0)
    return np.asarray(centred / np.maximum(centred.std(axis=0), 1e-12))


def _out_of_fold(design: Floats, target: Floats, rng: np.random.Generator) -> Floats:
    fold = rng.permutation(len(target)) % _NUM_FOLDS
    predicted = np.zeros(len(target))
    for held_out in range(_NUM_FOLDS):
        train = fold != held_out
        gram = design[train].T @ design[train] + _RIDGE * train.sum() * np.eye(design.shape[1])
        weights = np.linalg.solve(gram, design[train].T @ (target[train] - target[train].mean()))
        predicted[~train] = design[~train] @ weights + target[train].mean()
    return predicted


def _ranks(values: Floats) -> Floats:
    return np.unique(values, return_inverse=True)[1].astype(np.float64)


def _covariance(one: Floats, other: Floats, weights: Floats) -> float:
    total = weights.sum()
    return float((weights * one * other).sum() / total - (weights * one).sum() * (weights * other).sum() / total**2)


def _correlation(one: Floats, other: Floats, weights: Floats) -> float:
    scale = _covariance(one, one, weights) * _covariance(other, other, weights)
    return _covariance(one, other, weights) / float(np.sqrt(scale)) if scale > 1e-24 else 0.0


def _bootstrap(figure: Callable[[Floats], float], size: int, rng: np.random.Generator) -> float:
    """Standard error of a figure under resampling of its groups."""
    resampled = [
        figure(np.bincount(rng.integers(0, size, size), minlength=size).astype(np.float64))
        for _ in range(_NUM_RESAMPLES)
    ]
    return max(float(np.std(resampled)), 1e-9)
