"""Processes that end at a chosen moment of a catalogue's work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from feature_repo.versions import Catalogue, CatalogueError

_KILLED, _REFUSED, _BROKEN = 7, 8, 9


class Killed(BaseException):
    """Ends an operation from inside, past every handler of exceptions."""


def do_not_sync(connection: Any, record: Any) -> None:
    """Spare tests the wait for the disk: they end processes, not the machine."""
    del record
    connection.execute("PRAGMA synchronous = OFF")


@contextmanager
def killed_at(catalogue: Catalogue, moment: int, kill: Callable[[], None]) -> Iterator[None]:
    """Call `kill` before the statement or commit of that number, counted from 0, or when the block is through."""
    engine, passed = catalogue._database.engine, 0

    def count(*_: Any) -> None:
        nonlocal passed
        passed += 1
        if passed == moment + 1:
            kill()

    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "commit", count)
    try:
        yield
        kill()
    finally:
        event.remove(engine, "before_cursor_execute", count)
        event.remove(engine, "commit", count)


def raise_killed() -> None:
    """Kill by an exception: the transaction is rolled back by the process that began it."""
    raise Killed


def run_killed(catalogue: Catalogue, moment: int, operation: Callable[[], object]) -> None:
    """Run an operation in this process and end it at a moment by an exception, if it was not refused before."""
    try:
        with killed_at(catalogue, moment, raise_killed):
            operation()
    except (Killed, CatalogueError):
        return


def run_exiting(catalogue: Catalogue, moment: int, operation: Callable[[], object]) -> None:
    """Run an operation in a forked process that ends at a moment without a word, if it was not refused before."""
    child = os.fork()
    if child == 0:
        try:
            with killed_at(catalogue, moment, lambda: os._exit(_KILLED)):
                operation()
        except CatalogueError:
            os._exit(_REFUSED)
        finally:
            os._exit(_BROKEN)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (_KILLED, _REFUSED):
        raise AssertionError(f"the forked process must be killed or refused (got exit status {status})")
