"""What is measured in one process: training, the plain loop, a matrix product, and the embedding of entities."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from feature_repo.encoding import Array
from tests.benchmarks.training_paths.made_rows import Sizes, made_rows, made_users, upstream_config
from tests.benchmarks.training_paths.plain_loop import PlainLoop
from trainers.data.active_entities import CHUNK_ENTITIES, Chunks, EntityFiles
from trainers.data.examples import Rows
from trainers.data.row_files import ChosenExamples, mapped
from trainers.progress import SILENT
from trainers.torch_setup import set_up_torch
from trainers.upstream.recipes import UpstreamRecipe
from trainers.upstream.trainer import UpstreamExamples, UpstreamTrainer
from trainers.upstream.walk import write_embeddings

MATMUL, TRAIN, PLAIN, EMBED = "matmul", "train", "plain", "embed"
MATRIX = 2048
"""Rows and columns of the plain matrix product."""
CUTOFF = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a process is given."""

    recipe: UpstreamRecipe
    sizes: Sizes
    num_examples: int
    """Rows of one repetition of training."""
    num_entities: int
    """Users of one repetition of embedding."""
    seconds: float
    """Least time of one repetition of the matrix product."""
    folder: Path
    """Scratch folder of the process."""
    threads: int = 1
    """Threads of the process, as one that trains has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repetition:
    """What one repetition took."""

    units: float
    """Work done: floating-point operations, rows or entities."""
    seconds: float
    input_seconds: float = 0.0
    """Part of it in which inputs were put together."""


@dataclass(slots=True)
class Clock:
    """Time that was spent in something, added up."""

    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ClockedExamples(ChosenExamples):
    """Rows that note how long their batches take to put together."""

    clock: Clock = field(default_factory=Clock)

    def tensors(self, rows: Rows) -> dict[str, Tensor]:
        """As `Examples` does, on the clock."""
        started = time.perf_counter()
        found = super().tensors(rows)
        self.clock.seconds += time.perf_counter() - started
        return found


class Ways:
    """All ways, each set up when it is first asked for."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def repeat(self, way: str) -> Repetition:
        """Do the work of a way once more; what must be put in order before is not in the time."""
        found: dict[str, Callable[[], Repetition]] = {
            MATMUL: self._matmul,
            TRAIN: self._train,
            PLAIN: self._plain,
            EMBED: self._embed,
        }
        if way == PLAIN:
            torch.set_num_threads(self._setup.threads)
        else:
            set_up_torch(self._setup.threads)
        return found[way]()

    def warm_up(self, way: str) -> None:
        """Two steps, so that no repetition pays for what is made once."""
        batch = 2 * self._setup.recipe.batch_size
        if way == TRAIN:
            self._fit(_first(self._rows, batch))
        elif way == PLAIN:
            self._loop.fit(_first(self._rows, batch))
        elif way == EMBED:
            self._embed()
        else:
            self._matmul()

    def flops_per_example(self) -> float:
        """Floating-point operations of the matrix products and attentions of one training step, by row."""
        rows = _first(self._rows, self._setup.recipe.batch_size)
        with FlopCounterMode(display=False) as counter:
            self._fit(rows)
        return float(counter.get_total_flops()) / len(rows.user_ids)

    @property
    def num_parameters(self) -> int:
        """Weights of the model."""
        return sum(each.numel() for each in self._trainer.model.parameters())

    def _matmul(self) -> Repetition:
        left, right = torch.randn(2, MATRIX, MATRIX).unbind()
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < self._setup.seconds:
            left @ right
            count += 1
        return Repetition(units=2.0 * MATRIX**3 * count, seconds=time.perf_counter() - started)

    def _train(self) -> Repetition:
        clock = Clock()
        examples = self._rows.examples
        order = np.arange(len(examples))
        clocked = ClockedExamples(inputs=self._mapped, labels=examples.labels, order=order, clock=clock)
        rows = UpstreamExamples(examples=clocked, user_ids=self._rows.user_ids, pin_ids=self._rows.pin_ids)
        started = time.perf_counter()
        self._fit(rows)
        seconds = time.perf_counter() - started
        return Repetition(units=len(rows.user_ids), seconds=seconds, input_seconds=clock.seconds)

    def _plain(self) -> Repetition:
        started = time.perf_counter()
        self._loop.fit(self._rows)
        return Repetition(units=len(self._rows.user_ids), seconds=time.perf_counter() - started)

    def _embed(self) -> Repetition:
        """From the files that a run keeps the inputs of active entities in to the file of their vectors."""
        chunks = self._files("user", CUTOFF)
        out = self._setup.folder / "vectors.parquet"
        started = time.perf_counter()
        write_embeddings(self._trainer, "user", chunks, out, "the benchmark")
        return Repetition(units=self._setup.num_entities, seconds=time.perf_counter() - started)

    def _fit(self, rows: UpstreamExamples) -> None:
        random = np.random.default_rng(1)
        with SILENT.stage("train", len(rows.user_ids)) as stage:
            self._trainer.fit(
                rows, np.arange(len(rows.user_ids)), lr=self._setup.recipe.daily_lr, rng=random, stage=stage
            )

    @cached_property
    def _files(self) -> EntityFiles:
        files = EntityFiles(self._setup.folder / "entities")
        files.write(_MadeUsers(self._setup.sizes, self._setup.num_entities), [CUTOFF], SILENT)
        return files

    @cached_property
    def _rows(self) -> UpstreamExamples:
        return made_rows(self._setup.sizes, self._setup.num_examples, seed=3)

    @cached_property
    def _mapped(self) -> dict[str, Array]:
        """The rows' inputs in files, as a run trains from them."""
        return mapped([self._rows.examples], len(self._rows.user_ids), self._setup.folder)

    @cached_property
    def _trainer(self) -> UpstreamTrainer:
        return UpstreamTrainer(upstream_config(self._setup.recipe, self._setup.sizes), self._setup.recipe, seed=4)

    @cached_property
    def _loop(self) -> PlainLoop:
        config = upstream_config(self._setup.recipe, self._setup.sizes, sparse=False)
        return PlainLoop(config, self._setup.recipe, seed=4)


class _MadeUsers:
    """Users in chunks as large as those of a run; no Pins but one, which nobody embeds."""

    def __init__(self, sizes: Sizes, num_users: int) -> None:
        self._sizes, self._num_users = sizes, num_users

    def chunks(self, entity: str, cutoff: datetime) -> Chunks:
        """Users of any day."""
        del cutoff
        yield from made_users(self._sizes, self._num_users if entity == "user" else 1, CHUNK_ENTITIES, seed=2)


def _first(rows: UpstreamExamples, count: int) -> UpstreamExamples:
    kept = np.arange(min(count, len(rows.user_ids)))
    return UpstreamExamples(examples=rows.examples.take(kept), user_ids=rows.user_ids[kept], pin_ids=rows.pin_ids[kept])
