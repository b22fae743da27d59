"""The moment by which an online read must have ended, for stores that can keep to it.

It travels with the call, not through it: between a server's request and the socket of a store lie Feast's own
signatures, which have no place for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_end: ContextVar[float | None] = ContextVar("online_read_end", default=None)


@contextmanager
def reads_end(moment: float | None) -> Iterator[None]:
    """Reads within must have ended by a moment of the monotonic clock; None sets no end."""
    token = _end.set(moment)
    try:
        yield
    finally:
        _end.reset(token)


def seconds_left() -> float | None:
    """Until reads must have ended, at least 0; None where nothing was said."""
    moment = _end.get()
    return None if moment is None else max(0.0, moment - time.monotonic())
