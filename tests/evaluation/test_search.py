"""Sizes of rankers are chosen on the validation rows, by the first seed, in every arm alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.data.small_repo import SmallRepo
from tests.evaluation.jobs import ranker_job
from trainers.evaluation import search
from trainers.evaluation.arms import Arm, RankerJob, SeedResult
from trainers.evaluation.search import rankers_in_arms
from trainers.progress import SILENT
from trainers.ranking.recipes import RankingRecipe

NONE, USER = Arm(inputs="none"), Arm(inputs="user", entities=("user",))


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What became of an arm."""

    arm: Arm
    recipe: RankingRecipe
    epochs: tuple[int, ...]
    setting: str = ""


@pytest.fixture(scope="module")
def job(small_repo: SmallRepo) -> RankerJob:
    """The CTR ranker with two seeds."""
    return ranker_job(small_repo)


@pytest.fixture
def runs(job: RankerJob, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, int]]:
    """What was trained, where a dropout of .3 helps the arm without vectors and hurts the other."""
    made: list[tuple[str, float, int]] = []

    def run_seed(sized: RankerJob, arm: Arm, seed: int) -> SeedResult:
        made.append((arm.inputs, sized.recipe.dropout, seed))
        helps = (sized.recipe.dropout == 0.3) == (arm is NONE)
        labels = sized.data.examples.labels[:, 0]
        validation, test = (
            (1.0 if helps else -1.0) * (2.0 * labels[rows] - 1.0) for rows in (job.split.validation, job.split.test)
        )
        return SeedResult(weights={}, epoch=seed, validation_logits=validation, test_logits=test)

    def collected(sized: RankerJob, arm: Arm, seeds: list[SeedResult]) -> Chosen:
        return Chosen(arm=arm, recipe=sized.recipe, epochs=tuple(each.epoch for each in seeds))

    monkeypatch.setattr(search, "run_seed", run_seed)
    monkeypatch.setattr(search, "collected", collected)
    return made


def test_each_arm_takes_what_did_best_in_validation(job: RankerJob, runs: list[tuple[str, float, int]]) -> None:
    other = replace(job.recipe, dropout=0.3)
    found = rankers_in_arms({"pctr": job}, {"pctr": [NONE, USER]}, {"pctr": [other]}, workers=1, progress=SILENT)
    first, second = found["pctr"]
    assert (first.arm, first.recipe, first.epochs) == (NONE, other, job.seeds)  # type: ignore[attr-defined]
    assert (second.arm, second.recipe, second.epochs) == (USER, job.recipe, job.seeds)  # type: ignore[attr-defined]
    assert "dropout 0.3" in first.setting
    assert second.setting == ""
    own = job.recipe.dropout
    assert runs[:4] == [("none", own, 1), ("none", 0.3, 1), ("user", own, 1), ("user", 0.3, 1)]
    assert runs[4:] == [("none", 0.3, 2), ("user", own, 2)]


def test_nothing_is_trained_twice_without_others_to_try(job: RankerJob, runs: list[tuple[str, float, int]]) -> None:
    rankers_in_arms({"pctr": job}, {"pctr": [NONE]}, {}, workers=1, progress=SILENT)
    assert runs == [("none", job.recipe.dropout, seed) for seed in job.seeds]


def test_rankers_of_one_arm_and_two_tasks_are_told_apart(job: RankerJob, runs: list[tuple[str, float, int]]) -> None:
    jobs = {"pctr": job, "pcvr": replace(job, recipe=replace(job.recipe, dropout=0.3))}
    found = rankers_in_arms(jobs, {"pctr": [NONE], "pcvr": [NONE]}, {}, workers=1, progress=SILENT)
    assert [found[name][0].recipe.dropout for name in jobs] == [job.recipe.dropout, 0.3]  # type: ignore[attr-defined]
    assert len(runs) == 2 * len(job.seeds)


def test_setting_names_what_is_tried(job: RankerJob) -> None:
    text = search.setting(replace(job.recipe, lr=0.25, dropout=0.5))
    assert "lr 0.25" in text
    assert "dropout 0.5" in text
    assert np.char.count(text, ",") == 4
