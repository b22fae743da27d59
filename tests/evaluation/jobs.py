"""Downstream jobs on the small repo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.data.small_repo import SmallRepo
from trainers.data.engaged_pairs import engaged_pairs
from trainers.data.engagements import read_engagements
from trainers.data.long_histories import read_histories
from trainers.data.ranking_data import split
from trainers.data.retrieval_data import RetrievalPeriod
from trainers.evaluation.arms import RankerJob
from trainers.evaluation.retrieval import POPULARITY_DAYS, RetrievalJob


def ranker_job(repo: SmallRepo, task: str = "click") -> RankerJob:
    """A small ranker with two seeds."""
    sizes = repo.recipe.ctr if task == "click" else repo.recipe.cvr
    return RankerJob(
        spec=repo.spec,
        data=repo.data,
        recipe=replace(sizes, sequence_buckets=256, max_epochs=1),
        task=task,
        tasks=(task,),
        split=split(repo.spec, repo.data, task),
        seeds=(1, 2),
        num_labels=len(repo.manifest.labels),
    )


def retrieval_job(repo: SmallRepo, **periods: RetrievalPeriod) -> RetrievalJob:
    """Retrieval judged on the last day, with the day before for validation."""
    test_from, until = repo.spec.window.test_from, repo.spec.window.until
    day = until - test_from
    read = {
        "validation": (test_from - day, test_from),
        "test": (test_from, until),
    }
    parts = split(repo.spec, repo.data, "click")
    rows = np.concatenate([parts.train, parts.validation])
    found = {name: periods.get(name) or repo.reader.period(*span, POPULARITY_DAYS) for name, span in read.items()}
    return RetrievalJob(
        manifest=repo.manifest,
        data=repo.data,
        user=repo.data.user,
        pairs=engaged_pairs(repo.data, rows, 0, repo.store, repo.data.user),
        histories=read_histories(repo.log, repo.store, repo.data.user, repo.spec.window.train_from),
        engagements=lambda period, histories: read_engagements(repo.log, period, histories=histories),
        recipe=repo.recipe.retrieval,
        sequence_buckets=256,
        samples=20,
        seeds=(1, 2),
        **found,
    )
