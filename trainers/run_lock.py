"""One process at a time in a run."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

LOCK_FILE = ".lock"
_HELD: ContextVar[Path | None] = ContextVar("held_run", default=None)


class RunLockedError(RuntimeError):
    """Another process works in the run."""


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Hold the run in `directory`; the kernel lets go of it even when the process is killed.

    A directory that this makes and nothing is put into is gone afterwards: what was refused leaves no run behind.

    Raises:
        RunLockedError: another process holds it; the message names its pid.
    """
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / LOCK_FILE
    with file.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            pid = handle.read().strip() or "unknown"
            message = f"{directory} must be worked on by one process at a time (process {pid} holds it)"
            raise RunLockedError(f"{message}; wait for that process, stop it, or take another --run") from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        token = _HELD.set(directory)
        try:
            yield
        finally:
            _HELD.reset(token)
            if is_new and list(directory.iterdir()) == [file]:
                file.unlink()
                directory.rmdir()


def held_run() -> Path | None:
    """Directory of the run that this process, or the one that it was forked from, works in; none outside of one."""
    return _HELD.get()
