"""Collaborative filtering on engagements alone, tuned on the validation days as the two-towers are.

Each baseline may read the log or the log with the long history, which upstream sees too; that, its settings and its
popularity prior are those with the best recall on the validation days.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from trainers.data.engagements import Engagements
from trainers.data.retrieval_data import RetrievalPeriod
from trainers.evaluation.retrieval_figures import Figures, Prior, best_prior, judged
from trainers.retrieval.baselines import EASE_LIMIT, als, ease, item_knn
from trainers.retrieval.full_ranking import ScoreRows
from trainers.retrieval.recipes import BaselineRecipe

logger = logging.getLogger(__name__)

ReadEngagements = Callable[[RetrievalPeriod, bool], Engagements]
"""Engagements before a period, with the long history or without."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One way to fit a baseline."""

    text: str
    """What is set, in words."""
    fit: Callable[..., ScoreRows]
    """Scores from the engagements of everyone and of those who are asked for, and a seed where there is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A model and the settings to choose from."""

    name: str
    settings: tuple[Setting, ...]
    seeded: bool = False
    """Whether its scores depend on a seed."""


def baselines(recipe: BaselineRecipe) -> list[Baseline]:
    """The baselines that a recipe asks for."""
    return [
        Baseline(name="item-kNN", settings=tuple(_knn(recipe))),
        Baseline(name="ALS", settings=tuple(_als(recipe)), seeded=True),
        Baseline(name="EASE", settings=tuple(_ease(recipe))),
    ]


def read_ahead(read: ReadEngagements, periods: Sequence[RetrievalPeriod]) -> ReadEngagements:
    """The engagements of these periods, all read now."""
    found = {(period.start, histories): read(period, histories) for period in periods for histories in (False, True)}
    return lambda period, histories: found[period.start, histories]


def judge_baseline(
    baseline: Baseline,
    recipe: BaselineRecipe,
    read: ReadEngagements,
    *,
    validation: RetrievalPeriod,
    test: RetrievalPeriod,
    seeds: tuple[int, ...],
) -> Figures | None:
    """Figures of a baseline on the test days; none where the corpus is too large for it."""
    chosen: list[tuple[float, Setting, Prior, bool]] = []
    for histories in (False, True):
        engagements = read(validation, histories)
        if baseline.name == "EASE" and min(engagements.everyone.shape) > EASE_LIMIT:
            logger.warning("baseline_left_out name=EASE shape=%s limit=%d", engagements.everyone.shape, EASE_LIMIT)
            return None
        for setting in baseline.settings:
            prior, recall = best_prior(
                validation, _scoring(baseline, setting, engagements, seeds[0]), recipe.prior_weights
            )
            chosen.append((recall, setting, prior, histories))
    recall, setting, prior, histories = max(chosen, key=lambda each: each[0])
    logger.info(
        "baseline_chosen name=%s setting=%r histories=%s prior=%s recall=%.4f",
        *(baseline.name, setting.text, histories, prior, recall),
    )
    engagements = read(test, histories)
    scorings = [_scoring(baseline, setting, engagements, seed) for seed in (seeds if baseline.seeded else seeds[:1])]
    text = f"{baseline.name} ({setting.text}{', long history' if histories else ''})"
    return judged(test, text, scorings, prior)


def _scoring(
    baseline: Baseline, setting: Setting, engagements: Engagements, seed: int
) -> Callable[[RetrievalPeriod], ScoreRows]:
    more = {"seed": seed} if baseline.seeded else {}
    return lambda _: setting.fit(engagements.everyone, engagements.queries, **more)


def _knn(recipe: BaselineRecipe) -> Iterator[Setting]:
    for similarity in recipe.knn_similarities:
        fit = partial(item_knn, similarity=similarity, neighbours=recipe.knn_neighbours)
        yield Setting(text=similarity, fit=fit)


def _als(recipe: BaselineRecipe) -> Iterator[Setting]:
    for alpha in recipe.als_alpha:
        sizes = {"factors": recipe.als_factors, "iterations": recipe.als_iterations}
        yield Setting(text=f"alpha {alpha:g}", fit=partial(als, **sizes, l2=recipe.als_l2, alpha=alpha))


def _ease(recipe: BaselineRecipe) -> Iterator[Setting]:
    for l2 in recipe.ease_l2:
        yield Setting(text=f"l2 {l2:g}", fit=partial(ease, l2=l2))
