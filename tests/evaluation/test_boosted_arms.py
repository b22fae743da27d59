"""LightGBM in the arms of the neural rankers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.small_repo import SmallRepo
from tests.evaluation.jobs import ranker_job
from trainers.evaluation.arms import RankerJob, arms
from trainers.evaluation.boosted_arms import arm_columns, boosted_results
from trainers.evaluation.figures import lift_rows
from trainers.progress import SILENT
from trainers.ranking.recipes import tiny_boosted


@pytest.fixture(scope="module")
def job(small_repo: SmallRepo) -> RankerJob:
    """The CTR ranker."""
    return ranker_job(small_repo)


def test_arms_of_lightgbm_read_what_the_neural_ones_read(small_repo: SmallRepo, job: RankerJob) -> None:
    recipe, rows = tiny_boosted(), job.split.test
    ctr, cvr = small_repo.manifest.embeddings
    none, user, _, both, both_domains = arms(ctr, [cvr])
    names = {arm.inputs: set(arm_columns(job, arm, recipe, rows).names) for arm in (none, user, both, both_domains)}
    dim = small_repo.manifest.embeddings[0].dim
    assert not any("_embedding_" in name for name in names["none"])
    assert names["user"] - names["none"] == {f"user_embedding_ctr_v1__embedding[{i}]" for i in range(dim)}
    assert len(names["both"] - names["none"]) == 2 * dim + 1
    assert len(names["both_domains"] - names["none"]) == 4 * dim + 2


def test_every_arm_and_seed_is_scored_on_the_rows_of_the_neural_rankers(small_repo: SmallRepo, job: RankerJob) -> None:
    ctr, cvr = small_repo.manifest.embeddings
    every = {"pctr": arms(ctr, [cvr])}
    found = boosted_results({"pctr": job}, every, tiny_boosted(), workers=1, progress=SILENT)["pctr"]
    assert [each.arm.inputs for each in found] == ["none", "both", "both_domains"]
    for each in found:
        assert each.validation_logits.shape == (len(job.seeds), len(job.split.validation))
        assert each.test_logits.shape == (len(job.seeds), len(job.split.test))
        assert np.isfinite(each.test_logits).all()
    rows = lift_rows(job, found, "ctr", "LightGBM", samples=20)
    assert [(row.ranker, row.inputs) for row in rows] == [("LightGBM", each.arm.inputs) for each in found]
    assert rows[0].roc_auc > 0.5
