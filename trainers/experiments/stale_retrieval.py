"""Retrieval with embeddings of some days ago: the same two-towers, and the inner product of the vectors alone.

Dims: U users, P Pins, S two-towers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from feature_repo.contract import EmbeddingVersion
from feature_repo.encoding import Array
from trainers.data.ranking_data import renamed_vectors
from trainers.data.retrieval_data import RetrievalPeriod
from trainers.evaluation.retrieval import RetrievalArm, RetrievalJob, two_tower
from trainers.evaluation.retrieval_figures import Represent, Vectors, best_prior, by_inner_product, judged
from trainers.experiments.ages import FRESH, MISSING, WITHOUT, age_cells, age_name
from trainers.experiments.product_recall import product, vector_inputs, vectors_at, with_vectors
from trainers.experiments.setting import Setting
from trainers.forked import map_forked
from trainers.metrics import bootstrap_mean, paired_bootstrap_means
from trainers.progress import Progress
from trainers.retrieval.train import embed

TOWERS, BASE_TOWERS, PRODUCT = "two-tower", "two-tower, no embeddings", "inner product of the vectors"
_Trained = tuple[str, int]
"""Name of a model and its seed."""


class StaleRetrieval:
    """Retrieval models of a run, judged on the test days with vectors that are older than those of its first day."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting, self._folder = setting, folder

    def rows(self, store: Any, versions: Mapping[int, EmbeddingVersion]) -> list[dict[str, Any]]:
        """A row for each model and age, and one for two-towers that never had embeddings.

        Args:
            store: Feast store that knows the versions.
            versions: Version with the vectors of so many days before, for those days that have a snapshot.
        """
        periods = {FRESH: self._job.test}
        periods |= {age_name(age): self._period(store, version) for age, version in versions.items()}
        periods[MISSING] = with_vectors(self._job.test, self._inputs, self._nothing)
        seeds = self._job.seeds
        plan: list[_Trained] = [
            (PRODUCT, seeds[0]),
            *((name, seed) for name in (TOWERS, BASE_TOWERS) for seed in seeds),
        ]
        self._judge([each for each in plan if not self._file(each).exists()], periods)
        found = []
        for model, own in ((PRODUCT, seeds[:1]), (TOWERS, seeds)):
            recalls = {name: self._recall((model, own), name) for name in periods}
            found += [self._row(model, name, recalls[name], recalls[FRESH]) for name in periods]
            if model == TOWERS:
                found.append(self._row(model, WITHOUT, self._recall((BASE_TOWERS, seeds), FRESH), recalls[FRESH]))
        return found

    def _row(self, model: str, vectors: str, recall: Array, fresh: Array) -> dict[str, Any]:
        samples, seed = self._job.samples, self._job.seeds[0]
        mean, low, high = bootstrap_mean(recall, samples, seed)
        row = {"model": model, "vectors": vectors, **age_cells(vectors), "n_users": len(recall), "recall_at_20": mean}
        row |= {"recall_ci95": (low, high)}
        if vectors != FRESH:
            change = paired_bootstrap_means(fresh, recall, samples, seed)
            row |= {"change_to_fresh_pct": change.lift, "change_to_fresh_ci95": (change.low, change.high)}
        return row

    def _judge(self, missing: list[_Trained], periods: Mapping[str, RetrievalPeriod]) -> None:
        """Train what is not there yet, and keep every user's recall in every period."""

        def judge(item: _Trained, progress: Progress) -> None:
            del progress
            represent, prior = self._product() if item[0] == PRODUCT else self._towers(*item)
            kept = [FRESH] if item[0] == BASE_TOWERS else list(periods)
            found = {
                name: judged(periods[name], item[0], [by_inner_product(represent)], prior).recall[0].copy()
                for name in kept
            }
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = self._file(item).with_suffix(".partial")
            save_file(found, partial)
            partial.replace(self._file(item))

        workers = self._setting.workers
        map_forked(judge, missing, name="retrieval", workers=workers, progress=self._setting.progress)

    def _product(self) -> tuple[Represent, Any]:
        represent = product(self._inputs, self._job.recipe.temperature)
        weights = self._job.recipe.prior_weights
        return represent, best_prior(self._job.validation, by_inner_product(represent), weights)[0]

    def _towers(self, name: str, seed: int) -> tuple[Represent, Any]:
        versions = (self._setting.version,) if name == TOWERS else ()
        arm = two_tower(replace(self._job, seeds=(seed,)), name, versions)
        return self._represent(arm), arm.prior

    def _represent(self, arm: RetrievalArm) -> Represent:
        data = self._job.data

        def represent(period: RetrievalPeriod) -> tuple[Vectors, Vectors]:
            queries = embed(arm.model, "user", renamed_vectors(data.user, arm.user, period.users))
            candidates = embed(arm.model, "pin", renamed_vectors(data.pin, arm.pin, period.pins))
            return queries / np.float32(arm.temperature), candidates

        return represent

    def _period(self, store: Any, version: EmbeddingVersion) -> RetrievalPeriod:
        """The test period with the vectors that a version has for its first day."""
        moment = self._setting.switch + self._setting.publish_delay
        return with_vectors(self._job.test, self._inputs, vectors_at(store, version, moment))

    def _nothing(self, entity: str, keys: Array) -> Array:
        del entity
        return np.zeros((len(keys), self._setting.version.dim + 1), np.float32)

    @cached_property
    def _inputs(self) -> dict[str, str]:
        return vector_inputs(self._setting)

    @cached_property
    def _job(self) -> RetrievalJob:
        return self._setting.evaluation.retrieval_job()

    def _recall(self, models: tuple[str, tuple[int, ...]], vectors: str) -> Array:
        """Each user's recall [U], the mean over the seeds."""
        name, seeds = models
        recall: Array = np.mean([load_file(self._file((name, seed)))[vectors] for seed in seeds], axis=0)
        return recall

    def _file(self, item: _Trained) -> Path:
        name, seed = item
        return self._folder / f"{''.join(c if c.isalnum() else '_' for c in name)}_seed{seed}.safetensors"
