"""How a retrieval model ranks the corpus, which popularity prior suits it, and its figures on the test days.

Every model gets the same popularity prior; its weight and its days are chosen on the validation days.
Dims: S seeds, U users, P Pins, E width of a vector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainers.data.retrieval_data import RetrievalPeriod
from trainers.metrics import bootstrap_mean, ndcg_at_k, recall_at_k
from trainers.report.schema import Interval, RetrievalRow
from trainers.retrieval.full_ranking import ScoreRows, best_by_bias, inner_products

logger = logging.getLogger(__name__)

K = 20
CURVE = (1, 2, 5, 10, 20, 50, 100)
"""Numbers of candidates at which recall is drawn."""
POPULARITY_DAYS = (1, 7)

Vectors = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]
Represent = Callable[[RetrievalPeriod], tuple[Vectors, Vectors]]
"""Query vectors [U, E] and candidate vectors [P, E] of a period, already divided by the temperature."""
Scoring = Callable[[RetrievalPeriod], ScoreRows]
"""Scores of the whole corpus of a period."""


def by_inner_product(represent: Represent) -> Scoring:
    """Scores of a model with a vector for each user and Pin."""
    return lambda period: inner_products(*represent(period))


@dataclass(frozen=True, kw_only=True, slots=True)
class Prior:
    """Popularity added to a model's scores."""

    days: int
    """Days of engagements that it is counted from."""
    weight: float
    """Weight of its logarithm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What a retrieval model found for each user of the test days."""

    model: str
    recall: Values
    """Recall@20 of each seed's model [S, U]; one row where nothing is trained."""
    ndcg: Values
    """The same of nDCG@20."""
    curve: tuple[tuple[int, float], ...] = ()
    """Number of candidates and mean recall among them."""


def priors(weights: Sequence[float]) -> list[Prior]:
    """The priors that are tried; without weight, days make no difference."""
    tried = [Prior(days=days, weight=weight) for weight in weights for days in POPULARITY_DAYS]
    return [prior for prior in tried if prior.weight or prior.days == POPULARITY_DAYS[0]]


def best_prior(validation: RetrievalPeriod, scoring: Scoring, weights: Sequence[float]) -> tuple[Prior, float]:
    """The prior with the best recall on the validation days, and that recall; the first of equals.

    Without a user in those days nothing speaks for any: the first prior is taken, at a recall of 0.
    """
    tried = priors(weights)
    if len(validation.user_ids) == 0:
        logger.warning("prior_not_chosen reason=no_engaged_user_in_validation taken=%s", tried[0])
        return tried[0], 0.0
    recalls = [_recall(validation, ranked).mean() for ranked in _ranked(validation, scoring, tried)]
    best = int(np.argmax(recalls))
    return tried[best], float(recalls[best])


def judged(test: RetrievalPeriod, model: str, scorings: Sequence[Scoring], prior: Prior) -> Figures:
    """Figures on the test days of one model, trained with one or more seeds."""
    deep = [_ranked(test, scoring, [prior], depth=CURVE[-1])[0] for scoring in scorings]
    ranked = [each[:, :K] for each in deep]
    depths = [k for k in CURVE if k <= deep[0].shape[1]]
    return Figures(
        model=model,
        recall=np.stack([_recall(test, each) for each in ranked]),
        ndcg=np.stack([ndcg_at_k(each, test.relevant, each.shape[1]) for each in ranked]),
        curve=tuple((k, _mean_recall(test, deep, k)) for k in depths),
    )


def _mean_recall(test: RetrievalPeriod, ranked: Sequence[npt.NDArray[np.int64]], k: int) -> float:
    return round(float(np.mean([recall_at_k(each, test.relevant, k).mean() for each in ranked])), 5)


def retrieval_rows(
    figures: Sequence[Figures], base: Figures, released: Figures, *, samples: int, seed: int
) -> list[RetrievalRow]:
    """Rows of the report: each model's figures, what it gains over the base, and how far it is behind the released.

    A user's value is the mean over the seeds. Intervals are 95 %, by a bootstrap over users; that of a difference is
    paired, both models judged on the same resampled users.
    """
    return [
        _row(each, None if each is base else base, None if each is released else released, samples, seed)
        for each in figures
    ]


def _row(figures: Figures, base: Figures | None, released: Figures | None, samples: int, seed: int) -> RetrievalRow:
    recall, recall_ci95 = _mean(figures.recall.mean(axis=0), samples, seed)
    ndcg, ndcg_ci95 = _mean(figures.ndcg.mean(axis=0), samples, seed)
    row = RetrievalRow(
        model=figures.model,
        recall_at_20=recall,
        ndcg_at_20=ndcg,
        ci95=recall_ci95,
        ndcg_ci95=ndcg_ci95,
        n_users=figures.recall.shape[1],
        recall_curve=figures.curve,
        recall_by_seed=tuple(figures.recall.mean(axis=1).tolist()) if len(figures.recall) > 1 else (),
    )
    differences: dict[str, object] = {}
    if base is not None:
        differences |= _named("recall_gain", _difference(figures.recall, base.recall, samples, seed))
        differences |= _named("ndcg_gain", _difference(figures.ndcg, base.ndcg, samples, seed))
    if released is not None:
        differences |= _named("released_lead", _difference(released.recall, figures.recall, samples, seed))
    return row.model_copy(update=differences)


def _named(name: str, found: tuple[float, Interval]) -> dict[str, object]:
    return {name: found[0], f"{name}_ci95": found[1]}


def _mean(values: Values, samples: int, seed: int) -> tuple[float, Interval]:
    mean, low, high = bootstrap_mean(values, samples, seed)
    return mean, (low, high)


def _difference(values: Values, base: Values, samples: int, seed: int) -> tuple[float, Interval]:
    return _mean(values.mean(axis=0) - base.mean(axis=0), samples, seed)


def _ranked(
    period: RetrievalPeriod, scoring: Scoring, tried: Sequence[Prior], depth: int | None = None
) -> npt.NDArray[np.int64]:
    """Positions of the first Pins of each user under each prior."""
    biases = np.stack([np.float32(prior.weight) * period.log_popularity[prior.days] for prior in tried])
    k = min(depth or K, len(period.pin_ids))
    return best_by_bias(scoring(period), len(period.user_ids), biases, period.seen, k)


def _recall(period: RetrievalPeriod, ranked: npt.NDArray[np.int64]) -> Values:
    return recall_at_k(ranked, period.relevant, ranked.shape[1])
