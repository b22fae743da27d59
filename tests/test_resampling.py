"""Lifts on resampled users and seeds, against hand-worked draws."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.metrics import METRICS, paired_bootstrap, roc_auc_evaluator
from trainers.resampling import Resampled, lift_over_users, lift_over_users_and_seeds, resampled

RANDOM = np.random.default_rng(0)
USERS = np.repeat(np.arange(40), 5)
LABELS = (RANDOM.random(200) < 0.4).astype(np.float64)
SCORES = [quality * LABELS + RANDOM.normal(size=200) for quality in (0.5, 0.6, 1.0, 1.2)]


def constant(*values: float, num_samples: int = 400) -> Resampled:
    """A metric that every resample leaves as it is, a value a seed."""
    return Resampled(values=np.array(values), draws=np.tile(values, (num_samples, 1)))


def test_lift_over_users_is_that_of_a_paired_bootstrap() -> None:
    found = resampled([[roc_auc_evaluator(LABELS, each)] for each in SCORES[::2]], USERS, 50, seed=3)
    expected = paired_bootstrap(LABELS, SCORES[0], SCORES[2], USERS, num_samples=50, seed=3)
    assert lift_over_users(*found) == pytest.approx(expected)


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
