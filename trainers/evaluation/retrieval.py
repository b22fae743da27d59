"""Full-ranking evaluation of retrieval on the test days, against popularity and the upstream embeddings themselves.

Every model gets the same popularity prior; its weight and its days are chosen on the validation days.
Dims: U users, P Pins, E width of a vector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.contract import EmbeddingVersion, RepoManifest
from feature_repo.encoding import InputSpec
from trainers.data.model_inputs import side_config
from trainers.data.ranking_data import RankingData, Split, renamed_vectors, vector_input, with_versions
from trainers.data.retrieval_data import RetrievalPeriod
from trainers.metrics import bootstrap_mean, ndcg_at_k, recall_at_k
from trainers.report.schema import RetrievalRow
from trainers.retrieval.model import TwoTower, TwoTowerConfig
from trainers.retrieval.recipes import RetrievalRecipe
from trainers.retrieval.train import Pairs, embed, top_pins, train_two_tower

logger = logging.getLogger(__name__)

K = 20
POPULARITY_DAYS = (1, 7)

Vectors = npt.NDArray[np.float32]
Represent = Callable[[RetrievalPeriod], tuple[Vectors, Vectors]]
"""Query vectors [U, E] and candidate vectors [P, E] of a period, already divided by the temperature."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prior:
    """Popularity added to a model's scores."""

    days: int
    """Days of engagements that it is counted from."""
    weight: float
    """Weight of its logarithm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalArm:
    """A trained two-tower model, and how it scores."""

    model: TwoTower
    user: InputSpec
    pin: InputSpec
    temperature: float
    prior: Prior
    """Chosen on the validation days."""
    row: RetrievalRow
    """Its figures on the test days."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalJob:
    """What retrieval models are trained and judged on."""

    manifest: RepoManifest
    data: RankingData
    split: Split
    """Rows of the CTR task."""
    label_column: int
    """Position of the CTR task's label."""
    validation: RetrievalPeriod
    test: RetrievalPeriod
    recipe: RetrievalRecipe
    sequence_buckets: int
    samples: int
    """Resamples behind every interval."""
    seed: int

    def __post_init__(self) -> None:
        if len(self.test.user_ids) == 0:
            raise ValueError(
                "retrieval needs a user with a new engagement in the test days (got none); move the dataset's window, "
                "or declare `repeats: true` if people engage with the same Pins again"
            )


def popularity_row(job: RetrievalJob) -> RetrievalRow:
    """Most popular Pins for everyone, over the days that did best in validation."""
    nothing: Represent = lambda period: (  # noqa: E731
        np.zeros((len(period.user_ids), 1), np.float32),
        np.zeros((len(period.pin_ids), 1), np.float32),
    )
    return _judged(job, "popularity", nothing, weights=(1.0,))[0]


def upstream_row(job: RetrievalJob, version: EmbeddingVersion) -> RetrievalRow:
    """Inner product of the upstream embeddings, with no training downstream; absent vectors score zero."""
    names = [vector_input(side, version) for side in (job.data.user, job.data.pin)]

    def represent(period: RetrievalPeriod) -> tuple[Vectors, Vectors]:
        queries, candidates = period.users.inputs[names[0]], period.pins.inputs[names[1]]
        return np.float32(1.0 / job.recipe.temperature) * queries[:, :-1], candidates[:, :-1]

    return _judged(job, f"upstream {version.key} inner product", represent, weights=job.recipe.prior_weights)[0]


def two_tower(job: RetrievalJob, name: str, versions: tuple[EmbeddingVersion, ...]) -> RetrievalArm:
    """Train a two-tower model on base features and these embeddings, and judge it."""
    user = with_versions(job.data.user, versions)
    pin = with_versions(job.data.pin, versions)
    represent = _represent(job, user, pin)
    positive = job.split.train[job.data.examples.labels[job.split.train, job.label_column] == 1.0]
    examples = renamed_vectors(job.data.pin, pin, renamed_vectors(job.data.user, user, job.data.examples))
    pairs = Pairs(
        examples=examples.take(positive), user_ids=job.data.user_ids[positive], pin_ids=job.data.pin_ids[positive]
    )
    model = train_two_tower(
        two_tower_config(job, user, pin),
        job.recipe,
        pairs,
        hidden_vectors=tuple(
            tuple(vector_input(side, version) for version in versions) for side in (user, pin) if versions
        ),
        validate=lambda trained: _best_prior(job, represent(trained), job.recipe.prior_weights)[1],
        seed=job.seed,
    )
    row, prior = _judged(job, name, represent(model), weights=job.recipe.prior_weights)
    return RetrievalArm(model=model, user=user, pin=pin, temperature=job.recipe.temperature, prior=prior, row=row)


def two_tower_config(job: RetrievalJob, user: InputSpec, pin: InputSpec) -> TwoTowerConfig:
    """Sizes of both towers for these inputs."""
    num_labels, dim = len(job.manifest.labels), job.recipe.token_dim
    return TwoTowerConfig(
        user=side_config(user, field_dim=dim, num_labels=num_labels),
        pin=side_config(pin, field_dim=dim, num_labels=num_labels),
        sequence_buckets=job.sequence_buckets,
        hidden_dim=job.recipe.hidden_dim,
        output_dim=job.recipe.output_dim,
    )


def _represent(job: RetrievalJob, user: InputSpec, pin: InputSpec) -> Callable[[TwoTower], Represent]:
    def of(model: TwoTower) -> Represent:
        def represent(period: RetrievalPeriod) -> tuple[Vectors, Vectors]:
            queries = embed(model, "user", renamed_vectors(job.data.user, user, period.users))
            candidates = embed(model, "pin", renamed_vectors(job.data.pin, pin, period.pins))
            return queries / job.recipe.temperature, candidates

        return represent

    return of


def _ranked(period: RetrievalPeriod, represent: Represent, prior: Prior) -> npt.NDArray[np.int64]:
    queries, candidates = represent(period)
    bias = prior.weight * period.log_popularity[prior.days]
    return top_pins(queries, candidates, bias, period.seen, min(K, len(period.pin_ids)))


def _best_prior(job: RetrievalJob, represent: Represent, weights: tuple[float, ...]) -> tuple[Prior, float]:
    """The prior with the best recall on the validation days, and that recall; the first of equals.

    Without a user in those days nothing speaks for any: the first prior is taken, at a recall of 0.
    """
    priors = [Prior(days=days, weight=weight) for weight in weights for days in POPULARITY_DAYS]
    if len(job.validation.user_ids) == 0:
        logger.warning("prior_not_chosen reason=no_engaged_user_in_validation taken=%s", priors[0])
        return priors[0], 0.0
    queries, candidates = represent(job.validation)
    computed: Represent = lambda period: (queries, candidates)  # noqa: E731, ARG005
    found = [
        (_recall(job.validation, _ranked(job.validation, computed, prior)).mean(), -i) for i, prior in enumerate(priors)
    ]
    recall, position = max(found)
    return priors[-position], float(recall)


def _recall(period: RetrievalPeriod, ranked: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return recall_at_k(ranked, period.relevant, min(K, ranked.shape[1]))


def _judged(
    job: RetrievalJob, name: str, represent: Represent, weights: tuple[float, ...]
) -> tuple[RetrievalRow, Prior]:
    prior, _ = _best_prior(job, represent, weights)
    ranked = _ranked(job.test, represent, prior)
    recalls = _recall(job.test, ranked)
    mean, low, high = bootstrap_mean(recalls, job.samples, job.seed)
    ndcg = ndcg_at_k(ranked, job.test.relevant, min(K, ranked.shape[1])).mean()
    row = RetrievalRow(
        model=name, recall_at_20=mean, ndcg_at_20=float(ndcg), ci95=(low, high), n_users=len(job.test.user_ids)
    )
    return row, prior
