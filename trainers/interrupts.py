"""Ctrl-C, also when native code turns it into an error of its own (DuckDB raises a plain RuntimeError)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C came; it raises `KeyboardInterrupt` as ever.

    Python lets only the main thread handle signals; in another one nothing is noted.
    """
    noted = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        noted.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield noted.is_set
        return
    previous = signal.signal(signal.SIGINT, note)
    try:
        yield noted.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
