"""Metrics against hand-worked numbers and scikit-learn, and intervals that respect users."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from trainers.metrics import (
    bootstrap_mean,
    ece,
    ece_by_chance,
    gauc,
    log_loss,
    ndcg_at_k,
    normalised_entropy,
    paired_bootstrap_means,
    pr_auc,
    pr_auc_evaluator,
    recall_at_k,
    roc_auc,
    roc_auc_evaluator,
)

LABELS = np.array([0, 0, 1, 1])
SCORES = np.array([0.1, 0.4, 0.35, 0.8])


@pytest.mark.parametrize(
    ("metric", "scores", "expected"),
    [
        # Of four pairs only (0.4, 0.35) is in the wrong order.
        (roc_auc, SCORES, 3 / 4),
        (roc_auc, np.array([0.5, 0.5, 0.5, 0.5]), 1 / 2),
        (roc_auc, np.array([0.1, 0.4, 0.4, 0.8]), 3.5 / 4),
        (roc_auc, -SCORES, 1 / 4),
        # Thresholds 0.8 and 0.35 gain half the recall each, at precision 1 and 2/3.
        (pr_auc, SCORES, 5 / 6),
        (pr_auc, np.array([0.5, 0.5, 0.5, 0.5]), 1 / 2),
        (log_loss, np.array([0.5, 0.75, 0.5, 0.25]), -(math.log(0.5) + 2 * math.log(0.25) + math.log(0.5)) / 4),
        (normalised_entropy, np.array([0.5, 0.5, 0.5, 0.5]), 1.0),
        (normalised_entropy, np.array([0.25, 0.25, 0.75, 0.75]), math.log(0.75) / math.log(0.5)),
    ],
)
def test_metric_matches_hand_worked_numbers(
    metric: Callable[[Any, Any], float], scores: np.ndarray, expected: float
) -> None:
    assert metric(LABELS, scores) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 4)), min_size=2, max_size=30))
def test_weighted_aucs_agree_with_scikit_learn(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, weights = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    assume(0 < (labels * weights).sum() < weights.sum())
    for build, expected in (
        (roc_auc_evaluator, reference.roc_auc_score),
        (pr_auc_evaluator, reference.average_precision_score),
    ):
        assert build(labels, scores)(weights) == pytest.approx(expected(labels, scores, sample_weight=weights))


@pytest.mark.parametrize("metric", [roc_auc, pr_auc, log_loss, ece])
@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1, 1], [0.1, 0.2, 0.3], r"both classes \(got 3 positive of 3 rows\)"),
        ([0, 0], [0.1, 0.2], r"both classes \(got 0 positive of 2 rows\)"),
        ([], [], r"both classes \(got 0 positive of 0 rows\)"),
        ([0, 2], [0.1, 0.2], r"labels must be 0 or 1 \(got \[2\]\)"),
        ([0.0, float("nan")], [0.1, 0.2], "labels must be 0 or 1"),
        ([0, 1], [0.1, float("inf")], r"scores must be finite \(got 1 that are not\)"),
        ([0, 1], [0.1], r"rows of one length \(got shapes \(2,\), \(1,\)\)"),
    ],
)
def test_ranker_metrics_refuse_rows_they_are_not_defined_on(
    metric: Callable[[Any, Any], float], labels: list[float], scores: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric(np.array(labels), np.array(scores))


def test_gauc_weighs_groups_by_rows_and_leaves_out_one_class() -> None:
    groups = np.array([7, 7, 7, 3, 3, 9, 9])
    labels = np.array([1, 0, 0, 1, 0, 1, 1])
    scores = np.array([0.5, 0.6, 0.1, 0.9, 0.2, 0.3, 0.4])
    # Group 7: one of two pairs, three rows. Group 3: its one pair, two rows. Group 9 has no negative.
    assert gauc(labels, scores, groups) == pytest.approx((3 * 0.5 + 2 * 1.0) / 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=40))
def test_gauc_agrees_with_one_auc_a_group(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, groups = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    mixed = [group for group in np.unique(groups) if 0 < labels[groups == group].mean() < 1]
    assume(mixed)
    sizes = [(groups == group).sum() for group in mixed]
    values = [reference.roc_auc_score(labels[groups == group], scores[groups == group]) for group in mixed]
    assert gauc(labels, scores, groups) == pytest.approx(np.average(values, weights=sizes))


def test_gauc_does_not_see_what_a_whole_group_shares() -> None:
    groups = np.repeat(np.arange(50), 4)
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 200), random.normal(size=200)
    assert gauc(labels, scores + 10 * groups, groups) == pytest.approx(gauc(labels, scores, groups))


def test_gauc_refuses_groups_of_one_class_each() -> None:
    with pytest.raises(ValueError, match="some group must hold both classes"):
        gauc(np.array([0, 0, 1]), np.array([0.1, 0.2, 0.3]), np.array([1, 1, 2]))


@pytest.mark.parametrize(
    ("probabilities", "num_bins", "expected"),
    [
        # Bins (0.1, 0.3 | labels 0, 1) and (0.6, 0.8 | labels 1, 1): gaps |0.2 - 0.5| and |0.7 - 1|.
        ([0.3, 0.6, 0.1, 0.8], 2, 0.3),
        ([0.3, 0.6, 0.1, 0.8], 1, abs(0.45 - 0.75)),
        # One row a bin, also when more bins are asked for than there are rows.
        ([0.3, 0.6, 0.1, 0.8], 99, (0.7 + 0.4 + 0.1 + 0.2) / 4),
        ([1.0, 1.0, 0.0, 1.0], 2, 0.0),
    ],
)
def test_ece_matches_hand_worked_numbers(probabilities: list[float], num_bins: int, expected: float) -> None:
    assert ece(np.array([1, 1, 0, 1]), np.array(probabilities), num_bins) == pytest.approx(expected)


def test_ece_by_chance_is_that_of_a_binomial_rate() -> None:
    # One bin of 400 rows at a rate of a half: the mean distance of a normal with deviation .025.
    expected = math.sqrt(2 / math.pi) * 0.5 / math.sqrt(400)
    assert ece_by_chance(np.full(400, 0.5), num_bins=1, num_draws=400) == pytest.approx(expected, rel=0.1)


def test_ece_by_chance_needs_a_rate_between_zero_and_one() -> None:
    with pytest.raises(ValueError, match=r"drawn from 5 probabilities must hold both classes \(got none\)"):
        ece_by_chance(np.zeros(5))


RANKED = np.array([[3, 1, 2, 8], [5, 6, -1, -1]])
RELEVANT = [{1, 2, 9}, [6]]
LOG2_3 = math.log2(3)


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [
        (recall_at_k, 1, [0.0, 0.0]),
        (recall_at_k, 2, [1 / 3, 1.0]),
        (recall_at_k, 4, [2 / 3, 1.0]),
        (ndcg_at_k, 1, [0.0, 0.0]),
        # Found at ranks 2 and 3 of a best possible 1, 2, 3; and at rank 2 of a best possible 1.
        (ndcg_at_k, 2, [(1 / LOG2_3) / (1 + 1 / LOG2_3), 1 / LOG2_3]),
        (ndcg_at_k, 3, [(1 / LOG2_3 + 1 / 2) / (1 + 1 / LOG2_3 + 1 / 2), 1 / LOG2_3]),
    ],
)
def test_retrieval_metric_matches_hand_worked_numbers(
    metric: Callable[..., np.ndarray], k: int, expected: list[float]
) -> None:
    assert metric(RANKED, RELEVANT, k).tolist() == pytest.approx(expected)


def test_nothing_retrieved_is_never_relevant() -> None:
    assert recall_at_k(np.array([[-1, -1]]), [{-1, 4}], 2).tolist() == [0.0]


@pytest.mark.parametrize(
    ("ranked", "relevant", "k", "message"),
    [
        ([[1, 2]], [{1}], 3, r"k must be in 1..2, the ranking's width \(got 3\)"),
        ([[1, 2]], [{1}], 0, r"k must be in 1..2"),
        ([[1, 2]], [set()], 1, r"every user needs a relevant Pin \(got none in rows \[0\]\)"),
        ([[1, 2]], [{1}, {2}], 1, r"a row per user \(got shape \(1, 2\)\)"),
        ([[4, 2, 4]], [{1}], 3, "must not repeat a Pin"),
    ],
)
def test_retrieval_metrics_refuse_impossible_rankings(
    ranked: list[list[int]], relevant: list[set[int]], k: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recall_at_k(np.array(ranked), relevant, k)


def test_bootstrap_of_means_is_paired() -> None:
    random = np.random.default_rng(0)
    recalls = random.random(300)
    lift, low, high = paired_bootstrap_means(recalls, 1.1 * recalls, num_samples=50)
    assert (lift, low, high) == pytest.approx((10.0, 10.0, 10.0))


def test_bootstrap_mean_has_the_width_of_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    mean, low, high = bootstrap_mean(values, num_samples=2000)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_lift_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a lift needs a value above 0 to compare with"):
        paired_bootstrap_means(np.zeros(5), np.ones(5), num_samples=10)
