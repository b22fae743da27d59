"""Bounds of the gates, as named recipes, and which figure each bound is for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from feature_repo.contract import ENTITIES


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRecipe:
    """Bounds of the figures, each for users and for Pins where it is one of an entity.

    The defaults lie outside everything that the two upstream models of KuaiRand showed in twelve days from their third
    one on, and inside what broken days show; docs/upgrades.md has both.
    """

    min_finite: float = 1.0
    """Share of the vectors without NaN or infinity."""
    min_coverage: float = 0.98
    """Share of the entities that ought to have a vector and have a finite one."""
    min_entities_to_yesterday: float = 0.9
    """Entities over those of the day before: a retention window loses a ninetieth of itself a day."""
    max_entities_to_yesterday: float = 1.5
    """The same from above: keys that were never active."""
    min_norm: float = 0.99
    """1 % quantile of the norms; vectors come at unit length."""
    max_norm: float = 1.01
    """99 % quantile of the norms."""
    min_spread: float = 0.01
    """Mean squared distance of a vector to the mean of all: 0 where a model has collapsed."""
    min_cosine_median: float = 0.9
    """Median cosine of an entity's vector to its vector of the day before."""
    min_cosine_p05: float = 0.7
    """5 % quantile of that cosine."""
    min_correlation: float = 0.7
    """Correlation of the vectors of both days around their means: 0 for vectors under other entities' keys."""
    min_neighbour_overlap: float = 0.05
    """Share of a Pin's ten nearest Pins that were so the day before."""
    min_probe_rank: float = 0.6
    """Mean share of Pins that a user's engaged Pin is ahead of: 0.5 for vectors that know nothing."""
    min_probe_recall_to_yesterday: float = 0.5
    """Recall@20 of engaged pairs over that of the vectors of the day before."""
    max_mean_shift_to_yesterday: float = 0.25
    """Distance of the population's mean to that of the day before."""
    max_covariance_shift_to_yesterday: float = 1.5
    """Distance of the covariances over the size of the earlier one."""
    max_mean_shift_since_reference: float = 0.5
    """The same against the reference frame: slow drift that no single day shows."""
    max_covariance_shift_since_reference: float = 3.0
    """Likewise."""


class Bound(NamedTuple):
    """Which figures a field of the recipe bounds, and from which side."""

    figure: str
    field: str
    direction: Literal["at least", "at most"]

    def figures(self, known: Collection[str]) -> list[str]:
        """Names of the figures that are there: one, or one an entity."""
        return [name for name in (self.figure, *(f"{self.figure}_{entity}" for entity in ENTITIES)) if name in known]


BOUNDS = (
    Bound("finite", "min_finite", "at least"),
    Bound("coverage", "min_coverage", "at least"),
    Bound("entities_to_yesterday", "min_entities_to_yesterday", "at least"),
    Bound("entities_to_yesterday", "max_entities_to_yesterday", "at most"),
    Bound("norm_p01", "min_norm", "at least"),
    Bound("norm_p99", "max_norm", "at most"),
    Bound("spread", "min_spread", "at least"),
    Bound("cosine_median", "min_cosine_median", "at least"),
    Bound("cosine_p05", "min_cosine_p05", "at least"),
    Bound("correlation", "min_correlation", "at least"),
    Bound("neighbour_overlap_at_10", "min_neighbour_overlap", "at least"),
    Bound("probe_rank", "min_probe_rank", "at least"),
    Bound("probe_recall_to_yesterday", "min_probe_recall_to_yesterday", "at least"),
    Bound("mean_shift_to_yesterday", "max_mean_shift_to_yesterday", "at most"),
    Bound("covariance_shift_to_yesterday", "max_covariance_shift_to_yesterday", "at most"),
    Bound("mean_shift_since_reference", "max_mean_shift_since_reference", "at most"),
    Bound("covariance_shift_since_reference", "max_covariance_shift_since_reference", "at most"),
)


def default() -> GateRecipe:
    """For thousands of entities and more."""
    return GateRecipe()


def tiny() -> GateRecipe:
    """For tests: models of a few steps on a hundred entities turn from day to day, but are not broken."""
    return replace(
        default(),
        min_entities_to_yesterday=0.5,
        max_entities_to_yesterday=3.0,
        min_spread=1e-4,
        min_cosine_median=0.0,
        min_cosine_p05=-1.0,
        min_correlation=0.0,
        min_neighbour_overlap=0.0,
        min_probe_rank=0.3,
        min_probe_recall_to_yesterday=0.1,
        max_mean_shift_to_yesterday=2.0,
        max_covariance_shift_to_yesterday=100.0,
        max_mean_shift_since_reference=2.0,
        max_covariance_shift_since_reference=100.0,
    )
