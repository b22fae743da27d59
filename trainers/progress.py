"""How a long computation tells what it is doing, without knowing who listens.

Step bodies take a `Progress`, open a stage for each loop and advance it; the console shows a bar, plain lines or
nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Stage(Protocol):
    """One loop under way."""

    def advance(self, num_done: int = 1) -> None:
        """Count `num_done` more units as done."""


@runtime_checkable
class Progress(Protocol):
    """Where stages are shown."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Stage]:
        """Open a stage of `total` units; none where the number is not known beforehand."""


class _SilentStage:
    def advance(self, num_done: int = 1) -> None:
        del num_done


class SilentProgress:
    """Progress that nobody sees: for tests and for library use."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Open a stage that shows nothing."""
        del name, total
        yield _SilentStage()


SILENT = SilentProgress()


def share_of(stage: Stage) -> Callable[[str, float], None]:
    """Callback (message, share in 0..1) that advances a stage of 100 units."""
    done = 0

    def report(message: str, share: float) -> None:
        del message
        nonlocal done
        units = round(100 * share)
        if units > done:
            stage.advance(units - done)
            done = units

    return report
