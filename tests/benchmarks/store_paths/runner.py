"""Runs a case: its ways in turn, again and again, so that whatever changes on the machine changes for all of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.store_paths import made_data
from tests.benchmarks.store_paths.journal import Journal
from tests.benchmarks.store_paths.plan import OURS, Case
from tests.benchmarks.store_paths.process import Limits, StoppedError, Worker
from tests.benchmarks.store_paths.worker import Repetition, Setup
from tests.feature_repo.stores.servers import running


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """How a case is run."""

    folder: Path
    """For its files, which are removed at the end."""
    repeats: int
    limits: Limits
    """Of the ways that are not ours."""
    say: Callable[[str], None]
    """Shows progress."""
    has_time: Callable[[], bool]
    """Whether another repetition may begin."""


def run_case(case: Case, journal: Journal, run: Run) -> bool:
    """Do what is left to do; returns whether that was all of it.

    Raises:
        RuntimeError: Our way or what all share failed, or ways gave different answers.
    """
    if journal.is_done(run.repeats):
        return True
    run.say(f"{case.title}: making data")
    with _files(run.folder, case) as data, ExitStack() as stack:
        ways = _Ways(case, journal, run, data, stack)
        ways.start()
        for number in range(run.repeats):
            for variant in case.variants:
                if journal.lacks(variant, number):
                    if not run.has_time():
                        return False
                    ways.repeat(variant, number)
    return True


@contextmanager
def _files(folder: Path, case: Case) -> Iterator[Path]:
    try:
        data = folder / "data"
        made_data.make(case.path, data, dict(case.params))
        yield data
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Ways:
    def __init__(self, case: Case, journal: Journal, run: Run, data: Path, stack: ExitStack) -> None:
        self._case, self._journal, self._run, self._data, self._stack = case, journal, run, data, stack
        self._redis_port = 0
        if case.params["store"] == "redis":
            self._redis_port = stack.enter_context(running(run.folder / "redis"))
        self._workers: dict[str, Worker] = {}

    def start(self) -> None:
        """Have everything in place that ways share."""
        if self._case.path == "online":
            self._open("fill").close()

    def repeat(self, variant: str, number: int) -> None:
        """One repetition of a way; one that does not get to the end is not tried again."""
        try:
            if variant not in self._workers:
                self._workers[variant] = self._open(variant)
            repetition = self._workers[variant].repeat(number)
        except StoppedError as error:
            if variant == OURS:
                raise
            self._journal.stop(variant, str(error))
            self._say(variant, number, str(error))
            return
        self._journal.add(variant, number, repetition)
        self._say(variant, number, _seconds_text(repetition))

    def _open(self, variant: str) -> Worker:
        setup = Setup(
            folder=self._run.folder / variant,
            data=self._data,
            params=self._params(),
            redis_port=self._redis_port,
        )
        return self._stack.enter_context(Worker(self._case.path, variant, setup, self._run.limits))

    def _params(self) -> dict[str, str | int | float]:
        params = dict(self._case.params)
        if self._case.quantiles:
            # Calls are shared out among the repetitions.
            params["calls"] = -(-int(params["calls"]) // self._run.repeats)
        return params

    def _say(self, variant: str, number: int, text: str) -> None:
        self._run.say(f"{self._case.title}: {variant} {number + 1}/{self._run.repeats}: {text}")


def _seconds_text(repetition: Repetition) -> str:
    calls = f" in {len(repetition.seconds)} calls" if len(repetition.seconds) > 1 else ""
    return f"{sum(repetition.seconds):.2f} s{calls}, at most {repetition.peak_mb:,.0f} MiB"
