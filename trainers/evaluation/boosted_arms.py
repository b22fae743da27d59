"""LightGBM rankers in the arms of the neural ones: the same rows, base features, validation days and seeds.

Dims: N rows, S seeds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.contract import ENTITIES
from trainers.data.examples import Rows
from trainers.data.ranking_data import renamed_vectors, vector_input
from trainers.evaluation.arms import Arm, RankerJob, Scored, arm_specs
from trainers.forked import map_forked
from trainers.progress import Progress
from trainers.ranking.boosted import Columns, columns_of, train_boosted
from trainers.ranking.logistic import train_logistic
from trainers.ranking.recipes import BoostedRecipe, LogisticRecipe

logger = logging.getLogger(__name__)

RANKER = "LightGBM"
"""Name in the report."""
INPUTS = ("none", "both", "other_domain", "unified", "both_domains")
"""Arms that it is trained in."""
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    name: str
    arm: Arm
    seed: int


def boosted_results(
    jobs: Mapping[str, RankerJob],
    arms: Mapping[str, list[Arm]],
    recipe: BoostedRecipe,
    *,
    workers: int,
    progress: Progress,
) -> dict[str, list[Scored]]:
    """What LightGBM says in every arm of `INPUTS`, by the job's name; the arm without embeddings first."""
    kept = {name: [arm for arm in arms[name] if arm.inputs in INPUTS] for name in jobs}
    plan = [
        _Item(name=name, arm=arm, seed=seed) for name, job in jobs.items() for arm in kept[name] for seed in job.seeds
    ]
    found = map_forked(
        lambda item, _: boosted_seed(jobs[item.name], item.arm, recipe, item.seed),
        plan,
        name="LightGBM with and without embeddings",
        workers=workers,
        progress=progress,
    )
    by_arm: dict[tuple[str, Arm], list[tuple[Logits, Logits]]] = {}
    for item, logits in zip(plan, found, strict=True):
        by_arm.setdefault((item.name, item.arm), []).append(logits)
    return {name: [_scored(arm, by_arm[name, arm]) for arm in each] for name, each in kept.items()}


def _scored(arm: Arm, seeds: list[tuple[Logits, Logits]]) -> Scored:
    validation, test = (np.stack(each) for each in zip(*seeds, strict=True))
    return Scored(arm=arm, validation_logits=validation, test_logits=test)


def boosted_seed(job: RankerJob, arm: Arm, recipe: BoostedRecipe, seed: int) -> tuple[Logits, Logits]:
    """Logits of one ranker on the validation rows and on the test rows."""
    parts = job.split
    train, validation, test = (
        arm_columns(job, arm, recipe, rows) for rows in (parts.train, parts.validation, parts.test)
    )
    labels = job.data.examples.labels[:, job.columns()[0]]
    found = train_boosted((train, labels[parts.train]), (validation, labels[parts.validation]), recipe, seed)
    logger.info(
        "boosted task=%s inputs=%s seed=%d columns=%d leaves=%d trees=%d validation_log_loss=%.5f",
        *(job.task, arm.inputs, seed, len(train.names), found.num_leaves, found.rounds, found.validation_log_loss),
    )
    return found.logits(validation), found.logits(test)


def logistic_seed(job: RankerJob, arm: Arm, sizes: BoostedRecipe, recipe: LogisticRecipe) -> tuple[Logits, Logits]:
    """Logits of the logistic regression on the validation rows and on the test rows; it has no random choices.

    Args:
        sizes: Says which columns are read.
    """
    parts = job.split
    train, validation, test = (
        arm_columns(job, arm, sizes, rows) for rows in (parts.train, parts.validation, parts.test)
    )
    labels = job.data.examples.labels[:, job.columns()[0]]
    found = train_logistic((train, labels[parts.train]), (validation, labels[parts.validation]), recipe)
    logger.info(
        "logistic task=%s inputs=%s columns=%d inverse_l2=%g",
        *(job.task, arm.inputs, len(train.names), found.inverse_l2),
    )
    return found.logits(validation), found.logits(test)


def arm_columns(job: RankerJob, arm: Arm, recipe: BoostedRecipe, rows: Rows) -> Columns:
    """What the arm's ranker reads of some rows."""
    user, pin = arm_specs(job, arm)
    examples = renamed_vectors(job.data.pin, pin, renamed_vectors(job.data.user, user, job.data.examples))
    versions = arm.versions if arm.entities == ENTITIES else ()
    pairs = [(vector_input(user, version), vector_input(pin, version)) for version in versions]
    return columns_of(examples.take(rows), (user, pin, job.data.context), pairs, recipe.max_categories)
