"""Retrieval models and their figures: baselines, the upstream embeddings themselves, and two-towers with seeds.

Whatever is chosen is chosen on the validation days, the last ones before the test and as many as it has where they can
be spared; then the model is trained anew, on the validation days too.
Dims: U users, P Pins, E width of a vector.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from feature_repo.contract import EmbeddingVersion, RepoManifest
from feature_repo.encoding import InputSpec
from trainers.data.dataset import Window
from trainers.data.engaged_pairs import Pairs
from trainers.data.examples import Examples
from trainers.data.long_histories import history_ids
from trainers.data.model_inputs import side_config
from trainers.data.ranking_data import RankingData, renamed_vectors, vector_input, with_versions
from trainers.data.retrieval_data import PIN_BUCKET, RetrievalPeriod
from trainers.evaluation.retrieval_baselines import Baseline, ReadEngagements, baselines, judge_baseline, read_ahead
from trainers.evaluation.retrieval_figures import (
    POPULARITY_DAYS,
    Figures,
    Prior,
    Represent,
    Vectors,
    best_prior,
    by_inner_product,
    judged,
    priors,
    retrieval_rows,
)
from trainers.forked import map_forked
from trainers.progress import SILENT, Progress, Stage
from trainers.report.schema import RetrievalRow
from trainers.retrieval.model import SharedVectors, TwoTower, TwoTowerConfig
from trainers.retrieval.recipes import RetrievalRecipe
from trainers.retrieval.train import embed, train_two_tower

__all__ = ["POPULARITY_DAYS", "Prior", "RetrievalArm", "RetrievalJob", "compare", "two_tower", "validation_start"]

logger = logging.getLogger(__name__)

VALIDATION_USERS = 4096
"""Users of the validation days by whom epochs and prior are chosen, at most."""
LEAST_TRAINING = 3
"""The validation days are at most one part in this many of the training days."""
BASE, UNIFIED, RELEASED = "two-tower, no embeddings", "two-tower, unified model", "two-tower, both domains"


class _TwoTowerPlan(NamedTuple):
    """A two-tower to train: its name, and the embeddings that it reads."""

    name: str
    versions: tuple[EmbeddingVersion, ...]


_Judged: TypeAlias = _TwoTowerPlan | Baseline


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalArm:
    """A two-tower model of the first seed, how it scores, and the figures of all seeds."""

    model: TwoTower
    user: InputSpec
    pin: InputSpec
    temperature: float
    prior: Prior
    """Chosen on the validation days."""
    epochs: int
    """The same."""
    figures: Figures
    """On the test days."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalJob:
    """What retrieval models are trained and judged on."""

    manifest: RepoManifest
    data: RankingData
    """Names and sizes of the inputs."""
    user: InputSpec
    """Inputs of the user side, those of `data` and maybe long histories."""
    pairs: Pairs
    """Engaged pairs of all days before the test."""
    histories: Examples
    """Long histories of users as they stood when training began; none where the dataset has none."""
    validation: RetrievalPeriod
    test: RetrievalPeriod
    engagements: ReadEngagements
    """What collaborative filtering learns from."""
    recipe: RetrievalRecipe
    sequence_buckets: int
    samples: int
    """Resamples behind every interval."""
    seeds: tuple[int, ...]
    """Of the trained models; what is chosen is chosen with the first."""

    def __post_init__(self) -> None:
        if len(self.test.user_ids) == 0:
            raise ValueError(
                "retrieval needs a user with a new engagement in the test days (got none); move the dataset's window, "
                "or declare `repeats: true` if people engage with the same Pins again"
            )


def validation_start(window: Window) -> datetime:
    """First of the validation days: as many as the test has, at most a third of the training days, at least one.

    Inputs stand still for a whole period, so a shorter one would reward what goes stale within it.
    """
    days = min((window.until - window.test_from).days, (window.test_from - window.train_from).days // LEAST_TRAINING)
    return window.test_from - timedelta(days=max(1, days))


def compare(
    job: RetrievalJob,
    versions: tuple[EmbeddingVersion, ...],
    unified: EmbeddingVersion | None = None,
    *,
    workers: int,
    progress: Progress,
) -> tuple[list[RetrievalRow], RetrievalArm]:
    """Rows of all models, and the two-tower with the embeddings of these versions, which is what a release serves.

    Args:
        unified: Version of a model of both domains, compared in the place of the others.
    """
    recipe, validation = job.recipe.baselines, job.validation.at_most(VALIDATION_USERS)
    compared = [unified] if unified is not None else []
    plan: list[_Judged] = [_TwoTowerPlan(BASE, ()), *(_TwoTowerPlan(UNIFIED, (each,)) for each in compared)]
    plan.append(_TwoTowerPlan(RELEASED, versions))
    plan += baselines(recipe) if recipe else []
    # Read here: forked processes leave DuckDB alone.
    read = read_ahead(job.engagements, (validation, job.test)) if recipe else job.engagements

    def judge(item: _Judged, _: Progress) -> RetrievalArm | Figures | None:
        if isinstance(item, _TwoTowerPlan):
            return two_tower(job, *item)
        assert recipe is not None
        return judge_baseline(item, recipe, read, validation=validation, test=job.test, seeds=job.seeds)

    found = map_forked(judge, plan, name="retrieval models", workers=workers, progress=progress)
    arms = [each for each in found if isinstance(each, RetrievalArm)]
    others = [each for each in found if isinstance(each, Figures)]
    products = [upstream(job, version) for version in (versions[0], *compared)]
    figures = [popularity(job), *others, *products, *(arm.figures for arm in arms)]
    rows = retrieval_rows(figures, arms[0].figures, arms[-1].figures, samples=job.samples, seed=job.seeds[0])
    return rows, arms[-1]


def popularity(job: RetrievalJob) -> Figures:
    """Most popular Pins for everyone, over the days that did best in validation."""
    nothing: Represent = lambda period: (  # noqa: E731
        np.zeros((len(period.user_ids), 1), np.float32),
        np.zeros((len(period.pin_ids), 1), np.float32),
    )
    prior, _ = best_prior(job.validation, by_inner_product(nothing), (1.0,))
    return judged(job.test, "popularity", [by_inner_product(nothing)], prior)


def upstream(job: RetrievalJob, version: EmbeddingVersion) -> Figures:
    """Inner product of the upstream embeddings, with no training downstream; absent vectors score zero."""
    names = [vector_input(side, version) for side in (job.data.user, job.data.pin)]

    def represent(period: RetrievalPeriod) -> tuple[Vectors, Vectors]:
        queries, candidates = period.users.inputs[names[0]], period.pins.inputs[names[1]]
        return np.float32(1.0 / job.recipe.temperature) * queries[:, :-1], candidates[:, :-1]

    prior, _ = best_prior(job.validation, by_inner_product(represent), job.recipe.prior_weights)
    return judged(job.test, f"upstream {version.key} inner product", [by_inner_product(represent)], prior)


def two_tower(
    job: RetrievalJob, name: str, versions: tuple[EmbeddingVersion, ...], progress: Progress = SILENT
) -> RetrievalArm:
    """Choose epochs and prior for a two-tower on base features and these embeddings, train it and judge it."""
    with progress.stage("two-tower, epochs", job.recipe.epochs * (1 + len(job.seeds))) as stage:
        training = _Training(job, versions, stage)
        epochs, prior = training.chosen()
        models = [training.fitted(seed, epochs) for seed in job.seeds]
    figures = judged(job.test, name, [by_inner_product(training.represent(model)) for model in models], prior)
    return training.arm(models[0], prior, epochs, figures)


def restored_two_tower(
    job: RetrievalJob,
    versions: tuple[EmbeddingVersion, ...],
    weights: Mapping[str, Tensor],
    *,
    prior: Prior,
    epochs: int,
    figures: Figures,
) -> RetrievalArm:
    """A two-tower that was trained for the same job earlier."""
    training = _Training(job, versions)
    model = training.untrained()
    model.load_state_dict(dict(weights))
    return training.arm(model.eval(), prior, epochs, figures)


class _Training:
    """Training of one arm."""

    def __init__(self, job: RetrievalJob, versions: tuple[EmbeddingVersion, ...], stage: Stage | None = None) -> None:
        self._job, self._versions, self._stage = job, versions, stage
        self.user = with_versions(job.user, versions)
        self.pin = _without_activity(with_versions(job.data.pin, versions))

    def chosen(self) -> tuple[int, Prior]:
        """Epochs and prior with the best recall on the validation days, the more epochs of equals."""
        job, validation = self._job, self._job.validation.at_most(VALIDATION_USERS)
        weights = job.recipe.prior_weights
        pairs = self._pairs.before(validation.start)
        if len(validation.user_ids) == 0 or len(pairs.user_ids) < 2:
            counts = f"users={len(validation.user_ids)} pairs_before={len(pairs.user_ids)}"
            logger.warning("epochs_and_prior_not_chosen reason=too_little_validation_data %s", counts)
            return job.recipe.epochs, priors(weights)[0]
        found: list[tuple[float, int, Prior]] = []
        for epoch, model in enumerate(self._epochs(pairs, job.seeds[0]), 1):
            prior, recall = best_prior(validation, by_inner_product(self.represent(model)), weights)
            found.append((recall, epoch, prior))
        _, epochs, prior = max(found, key=lambda each: each[:2])
        return epochs, prior

    def fitted(self, seed: int, epochs: int) -> TwoTower:
        """The model after so many epochs on all days before the test."""
        everything = self._epochs(self._pairs, seed)
        return next(itertools.islice(everything, epochs - 1, None))

    def untrained(self) -> TwoTower:
        """The model before training."""
        return TwoTower(self._config)

    def arm(self, model: TwoTower, prior: Prior, epochs: int, figures: Figures) -> RetrievalArm:
        """A trained model with what it reads."""
        return RetrievalArm(
            model=model,
            user=self.user,
            pin=self.pin,
            temperature=self._job.recipe.temperature,
            prior=prior,
            epochs=epochs,
            figures=figures,
        )

    def represent(self, model: TwoTower) -> Represent:
        """Vectors of a model."""
        data, temperature = self._job.data, self._job.recipe.temperature

        def vectors(period: RetrievalPeriod) -> tuple[Vectors, Vectors]:
            queries = embed(model, "user", renamed_vectors(data.user, self.user, period.users))
            candidates = embed(model, "pin", renamed_vectors(data.pin, self.pin, period.pins))
            return queries / np.float32(temperature), candidates

        return vectors

    def _epochs(self, pairs: Pairs, seed: int) -> Iterator[TwoTower]:
        hidden = tuple(
            tuple(vector_input(side, version) for version in self._versions)
            for side in (self.user, self.pin)
            if self._versions
        )
        found = train_two_tower(
            self._config,
            self._job.recipe,
            pairs,
            hidden_vectors=hidden,
            seed=seed,
            histories=self._job.histories,
        )
        for model in found:
            if self._stage is not None:
                self._stage.advance()
            yield model

    @cached_property
    def _pairs(self) -> Pairs:
        data, pairs = self._job.data, self._job.pairs
        examples = renamed_vectors(data.pin, self.pin, renamed_vectors(data.user, self.user, pairs.examples))
        return pairs.with_examples(examples)

    @cached_property
    def _config(self) -> TwoTowerConfig:
        return two_tower_config(self._job, self.user, self.pin, self._versions)


def two_tower_config(
    job: RetrievalJob, user: InputSpec, pin: InputSpec, versions: tuple[EmbeddingVersion, ...]
) -> TwoTowerConfig:
    """Sizes of both towers for these inputs.

    The first version is that of the engagements which are retrieved: its inner product starts with the weight that it
    was trained with, those of others with a small one.
    """
    num_labels, recipe = len(job.manifest.labels), job.recipe
    users = side_config(user, field_dim=recipe.token_dim, num_labels=num_labels)
    # A long history has much to say of which Pins go together, and little that a tower could add to it.
    lately = tuple(each for each in users.sequences if each.pins not in history_ids(user))
    return TwoTowerConfig(
        user=replace(users, sequences=lately),
        pin=side_config(pin, field_dim=recipe.token_dim, num_labels=num_labels),
        shared=tuple(
            SharedVectors(
                user=vector_input(user, version),
                pin=vector_input(pin, version),
                dim=version.dim,
                weight=recipe.tower_weight if position else 1.0,
            )
            for position, version in enumerate(versions)
        ),
        remembered=users.sequences if history_ids(user) else (),
        remembered_dropout=recipe.remembered_dropout,
        sequence_buckets=job.sequence_buckets,
        pin_bucket=PIN_BUCKET,
        hidden_dim=recipe.hidden_dim,
        output_dim=recipe.output_dim,
        tower_weight=recipe.tower_weight,
    )


def _without_activity(pin: InputSpec) -> InputSpec:
    """A Pin's inputs without its counts and rates, unless it has no others.

    They say how popular a Pin was in the days before; over a period they go stale, and the prior says it already.
    """
    others = pin.categorical or pin.multi_valued or pin.vectors
    return replace(pin, dense=()) if others else pin
