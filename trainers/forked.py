"""Independent computations on several cores that share this process's arrays without copying them.

Small models do not fill two cores with one computation; one computation per core does. Each runs on one thread, so
results do not depend on how many cores there were.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from trainers.progress import Progress, Stage
from trainers.torch_setup import set_up_torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDiedError(RuntimeError):
    """A process ended without a result, most often because memory ran out."""


def map_forked(
    function: Callable[[Item, Progress], Result], items: Sequence[Item], *, name: str, workers: int, progress: Progress
) -> list[Result]:
    """Results of the items in their order, one process an item; stages that an item opens are shown here.

    A forked process sees the caller's memory as it was, so neither `function` nor `items` is sent to it; results come
    back through a pipe and should be small. With one worker, or where processes cannot be forked, everything runs here.

    Args:
        function: Called with an item and where its stages are shown.
        name: Stage that counts the items done.
        workers: Processes at a time, 1 or more.

    Raises:
        WorkerDiedError: A process ended without a result.
        Exception: Whatever `function` raised first; what still runs then is ended.
    """
    with progress.stage(name, len(items)) as stage:
        if workers < 2 or len(items) < 2 or sys.platform != "linux":
            set_up_torch(1)
            return [_counted(function(item, progress), stage) for item in items]
        team = _Team(function, items, progress)
        try:
            found = {index: _counted(result, stage) for index, result in team.results(workers)}
        finally:
            team.end()
        return [found[index] for index in range(len(items))]


def _counted(result: Result, stage: Stage) -> Result:
    stage.advance()
    return result


class _Team(Generic[Item, Result]):
    """The processes under way."""

    def __init__(self, function: Callable[[Item, Progress], Result], items: Sequence[Item], progress: Progress) -> None:
        self._function, self._items, self._progress = function, items, progress
        self._running: dict[Any, _Worker] = {}

    def results(self, workers: int) -> Iterator[tuple[int, Result]]:
        """Position and result of each item, as they come."""
        waiting = list(enumerate(self._items))[::-1]
        while waiting or self._running:
            while waiting and len(self._running) < workers:
                worker = _Worker(self._function, *waiting.pop(), self._progress)
                self._running[worker.pipe] = worker
            for pipe in wait(list(self._running)):
                worker = self._running[pipe]
                worker.receive()
                if worker.results:
                    self._running.pop(pipe).end()
                    yield worker.index, worker.results[0]

    def end(self) -> None:
        """End whatever still runs."""
        for worker in self._running.values():
            worker.end()


class _Worker:
    """One process, the pipe on which it tells how far it is, and the stages that it has open."""

    def __init__(self, function: Callable[[Any, Progress], Any], index: int, item: Any, progress: Progress) -> None:
        self.index = index
        self.results: list[Any] = []
        self._progress = progress
        self._stages: dict[int, tuple[AbstractContextManager[Stage], Stage]] = {}
        fork = multiprocessing.get_context("fork")
        self.pipe, theirs = fork.Pipe()
        self._process = fork.Process(target=_work, args=(function, item, theirs), daemon=True)
        self._process.start()
        # Only the worker may hold its end, or its death would not close the pipe.
        theirs.close()

    def receive(self) -> None:
        """Take one message: of a stage, the result, or an error, which is raised."""
        try:
            kind, *details = self.pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            raise WorkerDiedError(
                f"a worker process must end with a result (it died, exit code {self._process.exitcode}; -9 is most "
                "often memory running out); run again with --threads 1, which needs less memory"
            ) from error
        getattr(self, f"_{kind}")(*details)

    def end(self) -> None:
        """Close what it has open, and end it where it still runs."""
        for key in list(self._stages):
            self._close(key)
        self._process.terminate()
        self._process.join()
        self.pipe.close()

    def _open(self, key: int, name: str, total: int | None) -> None:
        manager = self._progress.stage(name, total)
        self._stages[key] = manager, manager.__enter__()

    def _advance(self, key: int, num_done: int) -> None:
        self._stages[key][1].advance(num_done)

    def _close(self, key: int) -> None:
        self._stages.pop(key)[0].__exit__(None, None, None)

    def _result(self, result: Any) -> None:
        self.results.append(result)

    def _error(self, error: Exception) -> None:
        raise error


def _work(function: Callable[[Any, Progress], Any], item: Any, pipe: Connection) -> None:
    # Ctrl-C reaches every process of a terminal: the caller ends the workers, and they have nothing to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_up_torch(1)
    try:
        message = "result", function(item, _PipedProgress(pipe))
    except Exception as error:
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        message = "error", error
    # Tensors are handed over as open files of a process that must still be there: wait until the caller has them, or is
    # gone and wants no answer.
    with suppress(BrokenPipeError, EOFError, ConnectionResetError):
        pipe.send(message)
        pipe.recv()


class _PipedProgress:
    """Progress of a worker, shown by the process that it was forked from."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._num_stages = 0

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Open a stage there."""
        self._num_stages += 1
        key = self._num_stages
        self._pipe.send(("open", key, name, total))
        yield _PipedStage(self._pipe, key)
        self._pipe.send(("close", key))


class _PipedStage:
    def __init__(self, pipe: Connection, key: int) -> None:
        self._pipe, self._key = pipe, key

    def advance(self, num_done: int = 1) -> None:
        self._pipe.send(("advance", self._key, num_done))
