"""Processes that do the same work at the same moment, one a core, as the processes of a run do."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from tests.benchmarks.training_paths.ways import Repetition, Setup, Ways
from trainers.peak_memory import PeakMemory

_WARM_UP, _REPEAT, _SIZE, _PEAK = "warm up", "repeat", "size", "peak"


class Workers:
    """As many processes as there are cores, each with the work set up."""

    def __init__(self, setup: Setup, count: int) -> None:
        # Forked processes would share the pages of this one, and say nothing about their own memory.
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for number in range(count):
            ours, theirs = context.Pipe()
            own = replace(setup, folder=setup.folder / str(number))
            process = context.Process(target=_serve, args=(own, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def warm_up(self, way: str) -> None:
        """Set a way up in every process."""
        self._ask(_WARM_UP, way)

    def repeat(self, way: str) -> list[Repetition]:
        """One repetition in every process at once."""
        return self._ask(_REPEAT, way)

    def size(self) -> tuple[float, int]:
        """Floating-point operations of a training step by row, and weights of the model."""
        found: tuple[float, int] = self._ask(_SIZE, "")[0]
        return found

    def peak_mb(self, way: str) -> float:
        """Highest resident memory of a process in a repetition; of the first process."""
        return float(self._ask(_PEAK, way)[0])

    def _ask(self, what: str, way: str) -> list[Any]:
        for pipe in self._pipes:
            pipe.send((what, way))
        return [self._answer(pipe) for pipe in self._pipes]

    def _answer(self, pipe: Connection) -> Any:
        try:
            return pipe.recv()
        except EOFError as error:
            raise RuntimeError("a process of the benchmark must end well (see its traceback above)") from error

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10.0)
            process.kill()
            process.join()


def rate(repetitions: Sequence[Repetition]) -> float:
    """Work a second of all processes together."""
    return sum(each.units / each.seconds for each in repetitions)


def _serve(setup: Setup, pipe: Connection) -> None:
    setup.folder.mkdir(parents=True, exist_ok=True)
    ways = Ways(setup)
    while True:
        try:
            what, way = pipe.recv()
        except EOFError:
            return
        pipe.send(_answered(ways, what, way))


def _answered(ways: Ways, what: str, way: str) -> Any:
    if what == _WARM_UP:
        return ways.warm_up(way)
    if what == _REPEAT:
        return ways.repeat(way)
    if what == _SIZE:
        return ways.flops_per_example(), ways.num_parameters
    with PeakMemory(interval_seconds=0.02) as memory:
        ways.repeat(way)
    return memory.peak_mb
