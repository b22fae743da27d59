"""Independent computations on several cores that share this process's arrays without copying them.

Small models do not fill two cores with one computation; one computation per core does. Each runs on one thread, so
results do not depend on how many cores there were.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from trainers.torch_setup import set_up_torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_work: tuple[Callable[[Any], Any], Sequence[Any]] | None = None


def map_forked(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, done: Callable[[], None]
) -> list[Result]:
    """Results of the items in their order.

    A forked process sees the caller's memory as it was, so neither `function` nor `items` is sent to it; results come
    back through a pipe and should be small. With one worker, or where processes cannot be forked, everything runs here.

    Args:
        workers: Processes at a time, 1 or more.
        done: Called after each item, in the calling process.

    Raises:
        Exception: Whatever `function` raised first.
    """
    if workers < 2 or len(items) < 2 or sys.platform != "linux":
        set_up_torch(1)
        return [_counted(function(item), done) for item in items]
    global _work
    _work = (function, items)
    try:
        with multiprocessing.get_context("fork").Pool(min(workers, len(items)), _start_worker) as pool:
            return [_counted(result, done) for result in pool.imap(_call, range(len(items)))]
    finally:
        _work = None


def _start_worker() -> None:
    # Ctrl-C reaches every process of a terminal: the caller ends the workers, and they have nothing to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_up_torch(1)


def _call(index: int) -> Any:
    if _work is None:
        raise RuntimeError("a forked worker must start inside map_forked (got no work); please report this")
    function, items = _work
    return function(items[index])


def _counted(result: Result, done: Callable[[], None]) -> Result:
    done()
    return result
