"""What a day's refresh and a full retrain cost, each measured in a process of its own.

`python -m trainers.experiments.refresh_parts RUN PART OUT`: memory of one part must not be that of the other, and
neither that of whoever asked.
Dims: N rows.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from feature_repo.contract import ENTITIES, write_atomically
from feature_repo.layout import open_store
from trainers import run_config
from trainers.data.active_entities import ActiveEntities, EntityFiles
from trainers.data.event_log import EventLog
from trainers.data.history_rows import HistoryReader
from trainers.data.label_stream import LabelStream
from trainers.data.manifest import version_for
from trainers.data.prepare import EVENT_LOG, OFFLINE, REPO, manifest, recipe
from trainers.data.upstream_data import RowIndex, UpstreamSpecs, encode_rows, row_index, upstream_specs
from trainers.experiments.history_share import HistoryShare
from trainers.peak_memory import PeakMemory
from trainers.progress import SILENT
from trainers.steps import RunContext, remove
from trainers.torch_setup import set_up_torch
from trainers.upstream.aggregate import moving_average, normalised
from trainers.upstream.alignment import align
from trainers.upstream.gates import gate_figures
from trainers.upstream.publish import write_snapshot
from trainers.upstream.trainer import UpstreamExamples, UpstreamTrainer
from trainers.upstream.vector_files import read_frame
from trainers.upstream.walk import (
    CHECKPOINT,
    DayRows,
    WalkData,
    WalkPlan,
    daily_file,
    generator,
    learn_day,
    select_rows,
    walk,
    write_embeddings,
)
from trainers.upstream_rows import domain_tasks, history_reader, model_stream, upstream_examples
from trainers.upstream_steps import id_tables, upstream_trainer

FULL, DAY = "full", "day"
ENTITY_INPUTS = "entities"
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a phase took."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def measured(work: Callable[[], Result]) -> tuple[Result, Cost]:
    """Result of the work and what it took."""
    started, cpu = time.perf_counter(), time.process_time()
    with PeakMemory() as memory:
        result = work()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return result, Cost(seconds=seconds, cpu_seconds=cpu_seconds, peak_mb=memory.peak_mb)


class _Silent:
    def advance(self, num_done: int = 1) -> None:
        del num_done


class Parts:
    """The two ways to come to the vectors of a run's last day."""

    def __init__(self, directory: Path, folder: Path) -> None:
        config = run_config.load(directory)
        if config is None:
            raise ValueError(f"{directory} must be the directory of a run (got no run.json)")
        self._context, self._folder = RunContext(config=config), folder
        self._log = EventLog(self._context.path(EVENT_LOG))
        self._store = open_store(self._context.path(REPO))
        self._recipe = recipe(self._context).upstream
        self._cutoffs = self._log.spec.cutoffs()
        self._model = version_for(manifest(self._context).embeddings, "engagement").model

    def full(self) -> dict[str, Cost]:
        """From no model to the one of the day before the last, which the last day's refresh then goes on from."""
        cutoff = self._cutoffs[-1]
        (stream, examples), read = measured(lambda: self._every(row_index(self._log, cutoff)))
        plan = WalkPlan(
            model=self._model,
            cutoffs=tuple(self._cutoffs[:-1]),
            embed_from=self._cutoffs[-2],
            out=self._folder,
            seed=self._context.config.seed,
        )
        history = HistoryShare(self._history, 1.0)
        data = WalkData(
            stream=examples,
            known_at=stream.known_at,
            tasks=domain_tasks(self._log, self._model),
            entities=self._active.chunks,
            history=history,
            num_history=history.num_rows,
        )
        _, train = measured(lambda: walk(self._trainer(), data, plan, SILENT))
        return {"read": read, "train": train}

    def day(self) -> dict[str, Cost]:
        """From the model of the day before to the published vectors of the last day."""
        cutoff, before = self._cutoffs[-1], self._cutoffs[-2]
        random = generator(self._context.config.seed, self._model, cutoff)
        # A run that was stopped left some, and to find them would cost too little.
        remove(self._folder / ENTITY_INPUTS)

        def read() -> tuple[UpstreamExamples, int]:
            index = row_index(self._log, cutoff)
            stream = self._stream(index)
            new, replayed = select_rows(stream.known_at, before, cutoff, self._recipe.replay, random)
            examples = self._examples(index, stream.take(np.concatenate([new, replayed])))
            self._entities.write(self._active, [cutoff], SILENT)
            return examples, len(new)

        (stream, num_new), reading = measured(read)

        def train() -> UpstreamTrainer:
            trainer = self._trainer()
            trainer.load(self._folder / CHECKPOINT)
            rows = np.arange(len(stream.user_ids))
            day = DayRows(stream=stream, new=rows[:num_new], replayed=rows[num_new:])
            learn_day(trainer, day, domain_tasks(self._log, self._model), self._model, cutoff, random, _Silent())
            return trainer

        trainer, training = measured(train)
        _, publishing = measured(lambda: self._publish(trainer, before, cutoff))
        return {"read": reading, "train": training, "publish": publishing}

    def _publish(self, trainer: UpstreamTrainer, before: datetime, cutoff: datetime) -> None:
        """Embed, align to the day before, average, judge and write."""
        dim = self._recipe.embedding_dim
        for entity in ENTITIES:
            file = daily_file(self._folder, entity, cutoff)
            chunks = self._entities(entity, cutoff)
            write_embeddings(trainer, entity, chunks, file, f"{self._model} at {cutoff:%Y-%m-%d}")
        yesterday = read_frame(partial(daily_file, self._folder, cutoff=before), dim)
        today = align(read_frame(partial(daily_file, self._folder, cutoff=cutoff), dim), yesterday)[0]
        gate_figures(today, yesterday, active={entity: keys for entity, (keys, _) in today.items()})
        for entity, (keys, vectors) in yesterday.items():
            past = keys, normalised(vectors)
            state = moving_average(past, today[entity], self._recipe.average_weight)
            delay = self._log.spec.publish_delay
            write_snapshot(entity, state, cutoff, delay, self._folder / "published" / f"{entity}.parquet")

    def _stream(self, index: RowIndex) -> LabelStream:
        return model_stream(self._log, index, self._model, self._recipe)

    def _every(self, index: RowIndex) -> tuple[LabelStream, UpstreamExamples]:
        """Everything that the model learns from."""
        stream = self._stream(index)
        return stream, self._examples(index, stream)

    def _examples(self, index: RowIndex, stream: LabelStream) -> UpstreamExamples:
        (examples,) = encode_rows(self._store, [self._specs], index, stream.rows, SILENT)
        return upstream_examples(stream, examples, index)

    def _trainer(self) -> UpstreamTrainer:
        set_up_torch(1)
        return upstream_trainer(self._log, self._specs, self._recipe, self._model, self._context.config.seed)

    @cached_property
    def _specs(self) -> UpstreamSpecs:
        offline, known_by = self._context.path(OFFLINE), self._log.spec.window.train_from
        return upstream_specs(self._log, manifest(self._context), offline, known_by, id_tables(self._recipe))

    @cached_property
    def _active(self) -> ActiveEntities:
        retention = timedelta(days=self._recipe.retention_days)
        return ActiveEntities(self._log, self._store, self._specs, self._context.path(OFFLINE), retention)

    @cached_property
    def _entities(self) -> EntityFiles:
        return EntityFiles(self._folder / ENTITY_INPUTS)

    @cached_property
    def _history(self) -> HistoryReader:
        offline, seed = self._context.path(OFFLINE), self._context.config.seed
        return history_reader(self._log, offline, self._specs, self._model, seed)


def main(arguments: list[str]) -> None:
    """Measure one part and write its costs as JSON."""
    directory, part, out = Path(arguments[0]), arguments[1], Path(arguments[2])
    parts = Parts(directory, out.parent / "walk")
    costs: dict[str, Any] = {
        phase: {"seconds": cost.seconds, "cpu_seconds": cost.cpu_seconds, "peak_mb": cost.peak_mb}
        for phase, cost in (parts.full() if part == FULL else parts.day()).items()
    }
    write_atomically(out, json.dumps(costs, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
