"""The moments of a process at which what is on the disk changes, and what can be made to happen there.

A moment comes before a file is opened for writing, renamed or deleted, before a folder is made or deleted, and before a
commit of a SQLite database, statements outside of transactions included. Between two moments a process may be killed
anywhere and leave what it would have left at the second one, or a file half written, which `torn` stands for.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_FILES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
_READS = ("SELECT", "PRAGMA", "BEGIN", "EXPLAIN", "ROLLBACK", "--", "SAVEPOINT", "RELEASE")

Moment = tuple[int, str, str]
"""Number, kind and subject."""


class Moments:
    """Calls back at every moment of this process that concerns a folder; there is one for the life of a process."""

    def __init__(self, folder: Path, callback: Callable[[Moment], None]) -> None:
        self._folder, self._callback = str(folder), callback
        self._count, self._busy = 0, False
        self._process = os.getpid()

    @property
    def count(self) -> int:
        """Moments so far."""
        return self._count

    def watch(self) -> None:
        """Begin; an audit hook stays for the life of the process."""
        sys.addaudithook(self._audit)
        connect = sqlite3.connect

        def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*arguments, **options)
            self._trace(connection)
            return connection

        # SQLAlchemy takes it from the second place.
        for module in (sqlite3, sqlite3.dbapi2):
            module.connect = traced  # type: ignore[attr-defined]

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy or os.getpid() != self._process:
            return
        if event == "open" and isinstance(arguments[0], str) and _writes(arguments[1], arguments[2]):
            self._pass("write" if "w" in (arguments[1] or "") else "append", arguments[0])
        elif event in _FILES:
            self._pass(event, os.fspath(arguments[0]) if not isinstance(arguments[0], int) else "")

    def _trace(self, connection: sqlite3.Connection) -> None:
        def statement(text: str) -> None:
            if self._busy or text.lstrip().upper().startswith(_READS):
                return
            if text.strip().upper().startswith(("COMMIT", "END")) or not connection.in_transaction:
                self._pass("commit", text.strip()[:40])

        connection.set_trace_callback(statement)

    def _pass(self, kind: str, subject: str) -> None:
        # A path relative to an open folder is one of a tree that is being deleted.
        if kind != "commit" and subject.startswith("/") and not subject.startswith(self._folder):
            return
        self._count += 1
        self._busy = True
        try:
            self._callback((self._count, kind, subject))
        finally:
            self._busy = False


def _writes(mode: Any, flags: Any) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in "wxa+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def tear(moment: Moment) -> None:
    """Leave what a process leaves that is killed while it writes the file that a moment is about.

    The half of a file that is about to be renamed, and nothing in one that is about to be written anew.
    """
    _, kind, subject = moment
    file = Path(subject)
    if kind == "os.rename" and file.is_file() and ".partial" in file.name:
        os.truncate(file, file.stat().st_size // 2)
    elif kind == "write" and not file.is_dir():
        with suppress(FileNotFoundError):
            file.write_bytes(b"")
