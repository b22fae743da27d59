"""What a materialization has completed, kept beside the feature repo so that a killed one continues."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

logger = logging.getLogger(__name__)


class MaterializationInProgressError(RuntimeError):
    """Another process materializes the same feature view."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A row that was written, read back later to see whether the online store still has it."""

    entity_key: str
    """Feast's serialized entity key, hexadecimal."""
    event_timestamp: int
    """Unix microseconds."""


class Journal:
    """Complete rows of one view's materialization: a head, then a line of JSON after each chunk.

    A line that a kill cut short is dropped, so the chunk before it is the last complete one.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self.rows = 0
        """Rows written by complete chunks."""
        self.probes: list[Probe] = []
        """First and last row of each complete chunk."""
        self.is_checked = False
        """Whether every row passed the checks, which happens before the first chunk."""
        self._load()

    def begin(self) -> None:
        """Say that every row passed the checks and none is written; what was there is forgotten."""
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        with _named(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_text(json.dumps({"fingerprint": self._fingerprint}) + "\n")
                partial.replace(self._path)
            finally:
                partial.unlink(missing_ok=True)
        self.rows, self.probes, self.is_checked = 0, [], True

    def complete(self, rows: int, probes: list[Probe]) -> None:
        """Say that the first `rows` rows are in the online store."""
        line = {"rows": rows, "probes": [[probe.entity_key, probe.event_timestamp] for probe in probes]}
        with _named(self._path), self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.rows = rows
        self.probes += probes

    def remove(self) -> None:
        """Forget everything: the view is whole, or what was written is gone."""
        self._path.unlink(missing_ok=True)
        self.rows, self.probes, self.is_checked = 0, [], False

    def _load(self) -> None:
        if not self._path.exists():
            return
        head, *chunks = self._lines() or [{}]
        if head.get("fingerprint") != self._fingerprint:
            logger.info("journal_dropped path=%s reason=other_rows", self._path)
            return
        self.is_checked = True
        for chunk in chunks:
            self.rows = chunk["rows"]
            self.probes += [Probe(entity_key=key, event_timestamp=moment) for key, moment in chunk["probes"]]

    def _lines(self) -> list[dict[str, Any]]:
        whole, _, cut = self._path.read_text().rpartition("\n")
        if cut:
            # Appending goes on after the last whole line.
            with self._path.open("r+") as file:
                file.truncate(len(whole) + 1 if whole else 0)
        return [json.loads(line) for line in whole.splitlines()]


@contextmanager
def exclusive(path: Path, view: str) -> Iterator[None]:
    """Keep other processes from materializing the view; the kernel lets go when this process dies, however it dies.

    Raises:
        MaterializationInProgressError: Another process, or another thread of this one, is at it.
    """
    with _opened_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise MaterializationInProgressError(
                f"feature view {view} must be materialized by one process at a time (got a second one while "
                f"{file.read().strip() or 'another process'} is at it); wait for that one and run again"
            ) from error
        with _named(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield


def _opened_lock(path: Path) -> TextIO:
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say of which file, and what to do, when the disk is full or the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno or 0,
            f"{path} must be written, what a materialization has done ({error.strerror}); "
            "free disk space, or name another batch_engine.journal_directory, and run again",
        ) from error
