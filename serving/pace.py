"""How long scoring took lately, so that a request whose time is nearly over does not begin it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_WEIGHT = 0.1
"""Of the newest duration in the moving average."""


class Pace:
    """Moving average of durations. Threads may lose each other's updates, which a later one makes up for."""

    def __init__(self) -> None:
        self.expected_s = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Take the duration of what is done within into account."""
        began = time.monotonic()
        yield
        self.expected_s += _WEIGHT * (time.monotonic() - began - self.expected_s)

    def skipped(self) -> None:
        """Expect a little less after each time that scoring was not begun: an average that nothing corrects any more
        must not keep it from ever being tried again."""
        self.expected_s *= 1.0 - _WEIGHT
