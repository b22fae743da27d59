"""One push into a run, or one export of its towers, at a time, whichever thread or process it comes from."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def taking_turns(file: Path) -> Iterator[None]:
    """Wait for whoever holds the file, then hold it; a killed process lets go of it."""
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
