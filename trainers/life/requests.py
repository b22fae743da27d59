"""What an operator asked for and was not told the end of, so that the command repeated after a kill is no second one.

A command notes what it makes before it makes it, and forgets the note once its operator has read how it ended. A kill
in between leaves the note, by which the same command finds what is there already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feature_repo.contract import write_atomically

FOLDER = "requests"


class Request:
    """One command, as it was asked for."""

    def __init__(self, run: Path, command: str, asked: Mapping[str, Any]) -> None:
        self._asked = {"command": command, **asked}
        digest = hashlib.sha256(json.dumps(self._asked, sort_keys=True).encode()).hexdigest()[:12]
        self._file = run / FOLDER / f"{command.replace(' ', '-')}-{digest}.json"

    def noted(self) -> dict[str, Any]:
        """What the same command noted before it was killed; empty where it was not."""
        if not self._file.is_file():
            return {}
        found: dict[str, Any] = json.loads(self._file.read_text())["noted"]
        return found

    def note(self, **facts: Any) -> None:
        """Keep what is about to be made."""
        write_atomically(self._file, json.dumps({"asked": self._asked, "noted": facts}) + "\n")

    @contextmanager
    def until_told(self) -> Iterator[None]:
        """Keep the note until the operator has been told, within, or reads why it was refused; a kill leaves it."""
        try:
            yield
        except Exception:
            self._forget()
            raise
        self._forget()

    def _forget(self) -> None:
        self._file.unlink(missing_ok=True)
