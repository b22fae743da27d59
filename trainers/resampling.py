"""Lifts with intervals: every ranker is judged on the same resampled users, and if asked on resampled seeds too.

Resampling users tells what other users on the same days would change; resampling the seeds with them, what training
again would change as well. With few seeds the latter is itself uncertain.
Dims: N rows, R resamples, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainers.metrics import Array, Evaluator, Floats, Lift, lift_of, resamples


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampled:
    """One metric of one ranker of S seeds."""

    values: Floats
    """On all rows [S]."""
    draws: Floats
    """On each resample of users [R, S]; NaN where the metric is not defined there."""


def resampled(evaluators: Sequence[Sequence[Evaluator]], groups: Array, num_samples: int, seed: int) -> list[Resampled]:
    """Metrics on all rows and on the same resamples of the groups.

    Args:
        evaluators: For each metric of each ranker, one evaluator a seed.
        num_samples: R; 0 where nothing is compared.
        groups: The unit that is resampled, normally the user of each row [N].

    Raises:
        ValueError: Less than no resamples are asked for.
    """
    if num_samples < 0:
        raise ValueError(f"num_samples must not be negative (got {num_samples})")
    ones = np.ones(len(groups))
    draws = [np.empty((num_samples, len(each))) for each in evaluators]
    for i, weights in enumerate(resamples(groups, num_samples, seed)):
        for found, each in zip(draws, evaluators, strict=True):
            found[i] = [evaluate(weights) for evaluate in each]
    return [
        Resampled(values=np.array([evaluate(ones) for evaluate in each]), draws=found)
        for each, found in zip(evaluators, draws, strict=True)
    ]


def lift_over_users(base: Resampled, other: Resampled) -> Lift:
    """Lift of the mean over seeds, with an interval over users.

    Raises:
        ValueError: The base's value is 0, or most resamples leave the metric undefined.
    """
    means = np.stack([base.draws.mean(axis=1), other.draws.mean(axis=1)], axis=1)
    return lift_of(float(base.values.mean()), float(other.values.mean()), means)


def lift_over_users_and_seeds(base: Resampled, other: Resampled, seed: int) -> Lift | None:
    """The same lift with an interval over users and seeds: both rankers with the same drawn seeds.

    Returns:
        None with a single seed, of which nothing can be drawn.

    Raises:
        ValueError: As in `lift_over_users`.
    """
    num_samples, num_seeds = base.draws.shape
    if num_seeds < 2:
        return None
    chosen = np.random.default_rng(seed).integers(num_seeds, size=(num_samples, num_seeds))
    pairs = [np.take_along_axis(each.draws, chosen, axis=1).mean(axis=1) for each in (base, other)]
    return lift_of(float(base.values.mean()), float(other.values.mean()), np.stack(pairs, axis=1))
