"""Work in forked processes: order, shown stages, errors and deaths."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from trainers.forked import WorkerDiedError, map_forked
from trainers.progress import SILENT, Progress, Stage


class Recorded:
    """Progress that keeps what it was shown: `[name, total, done, ended]` of each stage."""

    def __init__(self) -> None:
        self.stages: list[list[object]] = []

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Open a stage that is kept."""
        entry: list[object] = [name, total, 0, False]
        self.stages.append(entry)

        class Counted:
            def advance(self, num_done: int = 1) -> None:
                entry[2] += num_done  # type: ignore[operator]

        yield Counted()
        entry[3] = True


def square(item: int, progress: Progress) -> tuple[int, int]:
    """The square, slower for the first items, and the process that made it."""
    with progress.stage(f"item {item}", 2) as stage:
        stage.advance()
        time.sleep(0.02 * (3 - item))
        stage.advance()
    return item * item, os.getpid()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_map_forked_keeps_the_order_of_the_items_and_shows_their_stages(workers: int) -> None:
    shown = Recorded()
    found = map_forked(square, [0, 1, 2], name="squares", workers=workers, progress=shown)
    assert [value for value, _ in found] == [0, 1, 4]
    assert sorted(shown.stages, key=str) == [
        ["item 0", 2, 2, True],
        ["item 1", 2, 2, True],
        ["item 2", 2, 2, True],
        ["squares", 3, 3, True],
    ]
    own = [process == os.getpid() for _, process in found]
    assert own == [workers == 1] * 3


def test_workers_see_the_callers_arrays_on_one_thread() -> None:
    array = np.arange(5)
    found = map_forked(
        lambda item, _: (int(array[item]), torch.get_num_threads()), [1, 3], name="rows", workers=2, progress=SILENT
    )
    assert found == [(1, 1), (3, 1)]


def test_error_of_a_worker_is_raised_here_with_where_it_came_from() -> None:
    def fail(item: int, progress: Progress) -> int:
        with progress.stage("failing"):
            if item == 1:
                raise FloatingPointError(f"item {item} must be finite")
            time.sleep(30)
        return item

    shown = Recorded()
    with pytest.raises(FloatingPointError, match="item 1 must be finite") as caught:
        map_forked(fail, [0, 1], name="failures", workers=2, progress=shown)
    assert "in fail" in caught.value.__notes__[0]
    assert multiprocessing.active_children() == []
    assert [entry[0] for entry in shown.stages] == ["failures", "failing", "failing"]


def test_killed_worker_is_an_error_instead_of_a_wait_for_ever() -> None:
    def die(item: int, progress: Progress) -> int:
        del progress
        if item:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pytest.raises(WorkerDiedError, match=r"exit code -9; .* --threads 1"):
        map_forked(die, [0, 1], name="deaths", workers=2, progress=SILENT)


def test_no_items_give_no_results() -> None:
    assert map_forked(square, [], name="none", workers=2, progress=SILENT) == []


def test_results_may_hold_models() -> None:
    def model(item: int, progress: Progress) -> torch.nn.Module:
        del progress
        layer = torch.nn.Linear(2, 1)
        torch.nn.init.constant_(layer.weight, item)
        return layer

    found = map_forked(model, [3, 4], name="models", workers=2, progress=SILENT)
    assert [layer.weight.tolist() for layer in found] == [[[3.0, 3.0]], [[4.0, 4.0]]]
