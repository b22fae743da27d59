"""Lifts on resampled users and seeds, against hand-worked draws."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.evaluation.figures import roc_auc_lift
from trainers.metrics import (
    METRICS,
    MIN_GROUPS,
    Array,
    Lift,
    Metric,
    gauc,
    gauc_evaluator,
    roc_auc,
    roc_auc_evaluator,
)
from trainers.resampling import Resampled, lift_over_users, lift_over_users_and_seeds, resampled

RANDOM = np.random.default_rng(0)
USERS = np.repeat(np.arange(40), 5)
LABELS = (RANDOM.random(200) < 0.4).astype(np.float64)
SCORES = [quality * LABELS + RANDOM.normal(size=200) for quality in (0.5, 0.6, 1.0, 1.2)]


def constant(*values: float, num_samples: int = 400) -> Resampled:
    """A metric that every resample leaves as it is, a value a seed."""
    return Resampled(values=np.array(values), draws=np.tile(values, (num_samples, 1)))


def scored(num_users: int = 200, rows_a_user: int = 5) -> tuple[np.ndarray, ...]:
    """Labels, a noisy score, a clearly better one, users."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(num_users), rows_a_user)
    labels = random.integers(0, 2, len(users))
    noise = random.normal(size=len(users))
    return labels, labels + 2 * noise, labels + noise, users


def lift_between(
    labels: Array, worse: Array, better: Array, users: Array, metric: Metric = roc_auc_evaluator, samples: int = 50
) -> Lift:
    evaluators = [[metric(labels, each)] for each in (worse, better)]
    return lift_over_users(*resampled(evaluators, users, samples, seed=1))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_lift_of_equal_scores_is_exactly_zero(metric: Metric) -> None:
    labels, scores, _, users = scored()
    assert lift_between(labels, scores, scores, users, metric) == (0.0, 0.0, 0.0)


def test_lift_over_users_is_that_of_the_drawn_users_rows() -> None:
    labels, worse, better, users = scored(6, 4)
    found = resampled([[roc_auc_evaluator(labels, each)] for each in (worse, better)], users, 50, seed=3)
    random = np.random.default_rng(3)
    for draw in np.hstack([each.draws for each in found]):
        rows = np.concatenate([np.flatnonzero(users == user) for user in random.integers(6, size=6)])
        assert draw == pytest.approx([roc_auc(labels[rows], each[rows]) for each in (worse, better)])


def test_interval_holds_the_lift_and_excludes_zero_when_it_is_clear() -> None:
    labels, worse, better, users = scored()
    lift, low, high = lift_between(labels, worse, better, users, samples=200)
    assert lift == pytest.approx(100 * (roc_auc(labels, better) / roc_auc(labels, worse) - 1))
    assert 0 < low < lift < high


def test_lift_of_gauc() -> None:
    labels, worse, better, users = scored()
    lift, low, _ = lift_between(labels, worse, better, users, gauc_evaluator(users), samples=200)
    assert lift == pytest.approx(100 * (gauc(labels, better, users) / gauc(labels, worse, users) - 1))
    assert low > 0


def test_repeated_rows_of_a_user_give_no_certainty() -> None:
    once = scored(50, 2)
    labels, worse, better, users = (np.tile(each, 10) for each in once)
    assert lift_between(labels, worse, better, users) == pytest.approx(lift_between(*once))


def test_resamples_repeat_with_their_seed() -> None:
    labels, _, better, users = scored(50)
    first, again, other = (resampled([[roc_auc_evaluator(labels, better)]], users, 20, seed)[0] for seed in (1, 1, 2))
    assert (first.draws == again.draws).all()
    assert (first.draws != other.draws).any()


def test_lift_is_refused_where_most_resamples_leave_the_metric_undefined() -> None:
    undefined = Resampled(values=np.array([0.5]), draws=np.full((5, 1), np.nan))
    with pytest.raises(ValueError, match=r"defined on most resamples \(got 0 of 5\)"):
        lift_over_users(undefined, undefined)


def test_roc_auc_lift_is_not_judged_by_a_few_users() -> None:
    users = np.repeat(np.arange(40), 2)
    scores = np.linspace(1.0, 0.0, len(users), dtype=np.float32)[None]
    labels = (users < MIN_GROUPS).astype(np.float32)
    assert roc_auc_lift(labels, scores, scores, users, samples=5, seed=0) == (0.0, 0.0, 0.0)
    labels[users == 0] = 0
    with pytest.raises(ValueError, match=r"at least 10 users with positives .* \(got 9 and 31\)"):
        roc_auc_lift(labels, scores, scores, users, samples=5, seed=0)
    with pytest.raises(ValueError, match=r"\(got 31 and 9\)"):
        roc_auc_lift(1 - labels, scores, scores, users, samples=5, seed=0)


def test_all_metrics_are_judged_on_the_same_resamples() -> None:
    evaluators = [[METRICS[name](LABELS, SCORES[0])] for name in ("roc_auc", "pr_auc", "roc_auc")]
    first, other, again = resampled(evaluators, USERS, 20, seed=1)
    assert (first.draws == again.draws).all()
    assert (first.draws != other.draws).any()
    assert first.values == pytest.approx(METRICS["roc_auc"](LABELS, SCORES[0])(np.ones(200)))


def test_seeds_widen_the_interval_when_they_disagree() -> None:
    base, other = constant(0.5, 0.5), constant(0.55, 0.6)
    assert lift_over_users(base, other) == pytest.approx((15.0, 15.0, 15.0))
    # Two seeds give the means .55, .575 and .6.
    assert lift_over_users_and_seeds(base, other, seed=0) == pytest.approx((15.0, 10.0, 20.0))


def test_both_rankers_get_the_same_seeds() -> None:
    base, other = constant(0.5, 0.8), constant(0.55, 0.88)
    assert lift_over_users_and_seeds(base, other, seed=0) == pytest.approx((10.0, 10.0, 10.0))


def test_one_seed_has_no_interval_over_seeds() -> None:
    assert lift_over_users_and_seeds(constant(0.5), constant(0.6), seed=0) is None


def test_resampled_refuses_less_than_no_resamples() -> None:
    with pytest.raises(ValueError, match=r"num_samples must not be negative \(got -1\)"):
        resampled([], USERS, -1, seed=0)
