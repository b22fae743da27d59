"""A run opened for experiments: its log, features, published versions and downstream rows.

Dims: N rows, E width of a vector.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.contract import ENTITIES, EmbeddingVersion, write_atomically
from feature_repo.encoding import Array, InputSpec
from trainers.data.manifest import version_for
from trainers.data.prepare import OFFLINE
from trainers.data.ranking_data import vector_column, vector_input
from trainers.data.version_vectors import Keys, version_vectors
from trainers.evaluation.arms import Arm, RankerJob
from trainers.evaluation.step import Evaluation
from trainers.experiments.recipes import ExperimentRecipe, of_run
from trainers.experiments.results import FOLDER, made_from
from trainers.progress import Progress
from trainers.steps import RunContext, remove
from trainers.upstream_steps import embedded_cutoffs

WORK = f"{FOLDER}/work"


class Setting:
    """What all experiments on a run share; downstream rows are read through Feast once."""

    def __init__(self, context: RunContext, progress: Progress, *, seeds: int, retrains: int) -> None:
        """
        Args:
            seeds: Rankers, and two-towers, that every case is trained with.
            retrains: From-scratch trainings of the upstream model that stand for an upgrade.
        """
        self.context = replace(context, config=replace(context.config, num_seeds=seeds))
        self.progress, self.num_retrains = progress, retrains
        self.recipe: ExperimentRecipe = of_run(context.config.recipe)

    @cached_property
    def evaluation(self) -> Evaluation:
        """The run's downstream rows, jobs and recipes."""
        return Evaluation(self.context, self.progress)

    @cached_property
    def job(self) -> RankerJob:
        """The CTR ranker, on the run's own vectors."""
        return self.evaluation.ranker_job(self.evaluation.spec.ctr_task, ctr=True)

    @property
    def version(self) -> EmbeddingVersion:
        """The version that consumers of the CTR ranker read."""
        return version_for(self.evaluation.manifest.embeddings, "engagement")

    @property
    def arm(self) -> Arm:
        """A ranker that reads the version's user and Pin vectors."""
        return Arm(inputs="both", versions=(self.version,))

    @property
    def released_arm(self) -> Arm:
        """A ranker that reads all vectors that a release reads."""
        versions = self.evaluation.versions
        return Arm(inputs="both_domains" if len(versions) > 1 else "both", versions=versions)

    @property
    def offline(self) -> Path:
        """Offline store of the run."""
        return self.context.path(OFFLINE)

    @property
    def workers(self) -> int:
        """Processes to use at once."""
        return self.context.config.threads

    @property
    def publish_delay(self) -> timedelta:
        """Time from a cut-off to the moment its vectors may be used."""
        return self.evaluation.spec.publish_delay

    @property
    def switch(self) -> datetime:
        """Cut-off at which upgrades happen: the start of the test."""
        return self.evaluation.spec.window.test_from

    def cutoffs(self) -> list[datetime]:
        """Cut-offs with published vectors, from a day before downstream training begins."""
        return embedded_cutoffs(self.evaluation.log)

    def work(self, name: str) -> Path:
        """Folder of an experiment's intermediate results; those made from another run or recipe are dropped first."""
        folder = self.context.path(f"{WORK}/{name}")
        source = {
            "run": made_from(self.context.directory),
            "seed": self.context.config.seed,
            "recipe": dataclasses.asdict(self.recipe),
            "downstream": self.evaluation.recipe.fingerprint_text("ctr", "retrieval", "upstream"),
        }
        text = json.dumps(source, sort_keys=True) + "\n"
        note = folder / "made_from.json"
        if not note.is_file() or note.read_text() != text:
            remove(folder)
            write_atomically(note, text)
        return folder

    def inputs(self, store: Any, version: EmbeddingVersion, rows: Keys | None = None) -> dict[str, Array]:
        """Ranker inputs that hold another version's vectors in the place of the run's own, for these rows.

        Args:
            store: Feast store that knows the version.
            rows: Positions of downstream rows; all of them when not given.
        """
        data, found = self.job.data, {}
        chosen = np.arange(len(data.user_ids)) if rows is None else rows
        for entity, keys, side in zip(ENTITIES, (data.user_ids, data.pin_ids), (data.user, data.pin), strict=True):
            vectors = version_vectors(store, version, entity, keys[chosen], data.event_micros[chosen])
            found[vector_input(side, self.version)] = vectors
        return found

    def job_with(self, inputs: Mapping[str, Array]) -> RankerJob:
        """The CTR ranker on other vectors, which may be of another width."""
        data = self.job.data
        return replace(
            self.job,
            data=replace(
                data,
                user=self._of_width(data.user, inputs),
                pin=self._of_width(data.pin, inputs),
                examples=data.examples.with_inputs(dict(inputs)),
            ),
        )

    def _of_width(self, side: InputSpec, inputs: Mapping[str, Array]) -> InputSpec:
        """Inputs of a side whose vectors of the version are as wide as those given."""
        width = inputs[vector_input(side, self.version)].shape[1] - 1
        column = vector_column(side.side, self.version)
        vectors = (replace(each, dim=width) if each.column == column else each for each in side.vectors)
        return replace(side, vectors=tuple(vectors))
