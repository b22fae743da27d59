"""Upstream models trained for an experiment: walks over the run's days with other seeds, sizes or cut-offs.

Dims: N rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path

from feature_repo.contract import EmbeddingVersion
from trainers.data.active_entities import ActiveEntities, EntityFiles
from trainers.data.examples import Examples
from trainers.data.history_rows import HistoryReader
from trainers.data.older_vectors import older_vectors
from trainers.data.upstream_data import UpstreamRows, UpstreamSpecs, read_rows, upstream_specs
from trainers.experiments.cross_vectors import keep_cross
from trainers.experiments.history_share import HistoryShare
from trainers.experiments.setting import Setting
from trainers.forked import map_forked
from trainers.progress import Progress
from trainers.upstream.compatibility import Compatibility
from trainers.upstream.frame import Frame
from trainers.upstream.model import EXPERT_DIM
from trainers.upstream.recipes import UpstreamRecipe
from trainers.upstream.vector_files import read_frame
from trainers.upstream.walk import WalkData, WalkPlan, daily_file, walk
from trainers.upstream_rows import domain_tasks, history_reader, model_stream, of_tasks, walk_data
from trainers.upstream_steps import id_tables, upstream_trainer

ENTITY_INPUTS = "entities"
BACKWARD_MAP = "backward.safetensors"
_DONE = "done"


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkRequest:
    """One upstream model to train from scratch."""

    name: str
    """Folder of its vectors."""
    recipe: UpstreamRecipe
    seed: int
    until: datetime
    """Last cut-off."""
    embed_from: datetime
    """First cut-off with vectors."""
    compatible_with: EmbeddingVersion | None = None
    """Version that it is trained together with a map back to."""
    compatibility_weight: float = 1.0
    """Weight of that loss."""
    history_share: float = 1.0
    """Share of the users whose long histories it is pre-trained on."""
    tasks: tuple[str, ...] = ()
    """Tasks that it learns; all of its domains when there are none."""
    cross_days: int = 0
    """Leave cross representations of the entities' rows in so many days, in the place of embeddings; 0 for these."""


class Walks:
    """Trains what is asked for, several at once, and goes on where an interrupted process stopped."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._folder, self._model = setting, setting.work("walks"), setting.version.model

    def run(self, requests: Sequence[WalkRequest]) -> None:
        """Train the models that are not trained yet."""
        open_ones = [each for each in requests if not (self._folder / each.name / _DONE).exists()]
        if not open_ones:
            return
        embedded = [each for each in open_ones if not each.cross_days]
        cutoffs = [c for c in self._cutoffs if any(each.embed_from <= c <= each.until for each in embedded)]
        self._entities.write(self._active, cutoffs, self._setting.progress)
        older = {each.compatible_with for each in open_ones if each.compatible_with is not None}
        targets = {version: self._targets(version) for version in older}
        # Read here, once: the processes below share the rows, and touch neither Feast nor DuckDB.
        domain = self._domain

        def train(request: WalkRequest, progress: Progress) -> None:
            self._train(request, domain, targets, progress)

        map_forked(
            train,
            open_ones,
            name="upstream models",
            workers=self._setting.workers,
            progress=self._setting.progress,
        )

    def days(self, request: WalkRequest) -> Iterator[tuple[datetime, Frame]]:
        """Vectors of each cut-off of a trained model, not averaged."""
        for cutoff in self._cutoffs:
            if request.embed_from <= cutoff <= request.until:
                out = self._folder / request.name
                yield cutoff, read_frame(partial(daily_file, out, cutoff=cutoff), self.dim(request))

    def dim(self, request: WalkRequest) -> int:
        """Width of the vectors that a request leaves."""
        if not request.cross_days:
            return request.recipe.embedding_dim
        return EXPERT_DIM * len(self._tasks(request))

    def _tasks(self, request: WalkRequest) -> tuple[str, ...]:
        return request.tasks or domain_tasks(self._setting.evaluation.log, self._model)

    def backward_map(self, request: WalkRequest) -> Path:
        """File of the map that a compatible model was trained with."""
        return self._folder / request.name / BACKWARD_MAP

    def _train(
        self, request: WalkRequest, domain: WalkData, targets: dict[EmbeddingVersion, Examples], progress: Progress
    ) -> None:
        out, older = self._folder / request.name, request.compatible_with
        compatibility = Compatibility(older_dim=older.dim, weight=request.compatibility_weight) if older else None
        tasks = self._tasks(request)
        trainer = upstream_trainer(
            self._setting.evaluation.log, self._specs, request.recipe, self._model, request.seed, compatibility, tasks
        )
        history = HistoryShare(self._history(request.seed), request.history_share)
        stream = replace(domain.stream, examples=targets[older]) if older else domain.stream
        data = replace(domain, stream=stream, history=history, num_history=history.num_rows)
        if request.tasks:
            data = of_tasks(data, request.tasks)
        plan = WalkPlan(
            model=self._model,
            cutoffs=tuple(cutoff for cutoff in self._cutoffs if cutoff <= request.until),
            embed_from=request.embed_from,
            out=out,
            seed=request.seed,
        )
        keep = keep_cross(trainer, data, request.cross_days, out) if request.cross_days else None
        walk(trainer, data, plan, progress, keep=keep)
        if trainer.backward is not None and older is not None:
            trainer.backward.save(out / BACKWARD_MAP, {"older": older.key, "until": request.until.isoformat()})
        (out / _DONE).touch()

    def _targets(self, version: EmbeddingVersion) -> Examples:
        """What the model learns from, with what a consumer of the older version got for it."""
        evaluation = self._setting.evaluation
        stream = model_stream(evaluation.log, self._rows.index, self._model, evaluation.recipe.upstream)
        frame = self._rows.index.frame.take(stream.rows)
        older = older_vectors(evaluation.store, frame, version, self._setting.progress)
        return self._domain.stream.examples.with_inputs(older)

    @cached_property
    def _cutoffs(self) -> list[datetime]:
        return self._setting.evaluation.spec.cutoffs()

    @cached_property
    def _specs(self) -> UpstreamSpecs:
        evaluation = self._setting.evaluation
        return upstream_specs(
            evaluation.log,
            evaluation.manifest,
            self._setting.offline,
            evaluation.spec.window.train_from,
            id_tables(evaluation.recipe.upstream),
        )

    @cached_property
    def _rows(self) -> UpstreamRows:
        evaluation = self._setting.evaluation
        until = evaluation.spec.window.until
        specs, progress = self._specs, self._setting.progress
        return read_rows(evaluation.log, evaluation.store, specs, progress, until=until, folder=self._folder)

    @cached_property
    def _domain(self) -> WalkData:
        """Rows of the model's domains, with everything but what is the request's own."""
        evaluation = self._setting.evaluation
        return walk_data(evaluation.log, self._rows, self._model, evaluation.recipe.upstream, self._entities)

    @cached_property
    def _entities(self) -> EntityFiles:
        return EntityFiles(self._folder / ENTITY_INPUTS)

    @cached_property
    def _active(self) -> ActiveEntities:
        evaluation = self._setting.evaluation
        retention = timedelta(days=evaluation.recipe.upstream.retention_days)
        return ActiveEntities(evaluation.log, evaluation.store, self._specs, self._setting.offline, retention)

    def _history(self, seed: int) -> HistoryReader:
        log, offline = self._setting.evaluation.log, self._setting.offline
        return history_reader(log, offline, self._specs, self._model, seed)
