"""Every ranker in every arm, its sizes chosen on the validation days: the same few are tried with and without vectors.

The first seed tries them; the other seeds are trained with what it chose.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trainers.calibration import sigmoid
from trainers.evaluation.arms import Arm, ArmResult, RankerJob, SeedResult, collected, run_seed
from trainers.forked import map_forked
from trainers.metrics import log_loss
from trainers.progress import Progress
from trainers.ranking.recipes import RankingRecipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    """One ranker to train."""

    name: str
    arm: Arm
    recipe: RankingRecipe
    seed: int


def rankers_in_arms(
    jobs: Mapping[str, RankerJob],
    arms: Mapping[str, Sequence[Arm]],
    tried: Mapping[str, Sequence[RankingRecipe]],
    *,
    workers: int,
    progress: Progress,
) -> dict[str, list[ArmResult]]:
    """Results of all arms by the job's name.

    Args:
        tried: Recipes to choose from beside the job's own, by name; of equals the job's own, then the first.
    """
    first: list[_Item] = []
    for name, job in jobs.items():
        for arm in arms[name]:
            recipes = (job.recipe, *tried.get(name, ()))
            seeds = job.seeds[:1] if len(recipes) > 1 else job.seeds
            first += [_Item(name=name, arm=arm, recipe=recipe, seed=seed) for recipe in recipes for seed in seeds]
    found = dict(zip(first, _trained(jobs, first, workers, progress), strict=True))
    wanted = [
        _Item(name=name, arm=arm, recipe=_best(name, job, arm, found), seed=seed)
        for name, job in jobs.items()
        for arm in arms[name]
        for seed in job.seeds
    ]
    missing = [item for item in wanted if item not in found]
    found |= dict(zip(missing, _trained(jobs, missing, workers, progress), strict=True))
    by_arm: dict[tuple[str, Arm], list[_Item]] = {}
    for item in wanted:
        by_arm.setdefault((item.name, item.arm), []).append(item)
    return {name: [_result(job, by_arm[name, arm], found) for arm in arms[name]] for name, job in jobs.items()}


def _trained(
    jobs: Mapping[str, RankerJob], items: Sequence[_Item], workers: int, progress: Progress
) -> list[SeedResult]:
    def train(item: _Item, progress: Progress) -> SeedResult:
        del progress
        return run_seed(replace(jobs[item.name], recipe=item.recipe), item.arm, item.seed)

    if not items:
        return []
    return map_forked(train, items, name="rankers with and without embeddings", workers=workers, progress=progress)


def _best(name: str, job: RankerJob, arm: Arm, found: Mapping[_Item, SeedResult]) -> RankingRecipe:
    """Recipe of the least validation log loss with the first seed."""
    labels = job.data.examples.labels[job.split.validation, job.columns()[0]]
    losses = {
        item.recipe: log_loss(labels, sigmoid(result.validation_logits))
        for item, result in found.items()
        if (item.name, item.arm, item.seed) == (name, arm, job.seeds[0])
    }
    best = min(losses, key=lambda recipe: losses[recipe])
    if len(losses) > 1:
        logger.info(
            "ranker_chosen task=%s inputs=%s setting=%r validation_log_losses=%s",
            *(job.task, arm.inputs, setting(best), [round(loss, 5) for loss in losses.values()]),
        )
    return best


def _result(job: RankerJob, items: Sequence[_Item], found: Mapping[_Item, SeedResult]) -> ArmResult:
    recipe = items[0].recipe
    result = collected(replace(job, recipe=recipe), items[0].arm, [found[item] for item in items])
    return replace(result, setting=setting(recipe) if recipe != job.recipe else "")


def setting(recipe: RankingRecipe) -> str:
    """The values of a recipe that are tried, in words."""
    fields = dataclasses.asdict(recipe)
    return ", ".join(f"{name} {fields[name]}" for name in ("batch_size", "lr", "dropout", "weight_decay", "hidden_dim"))
