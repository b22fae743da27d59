"""What a benchmark of the server has measured so far, kept on disk: run again after a kill, it goes on from there."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feature_repo.contract import write_atomically


class Journal:
    """Figures by what they are of, at one commit.

    Args:
        folder: Where they are kept.
        commit: Figures of another one are not these.
    """

    def __init__(self, folder: Path, commit: str) -> None:
        self._folder, self._commit = folder, commit

    def once(self, subject: list[Any], measure: Callable[[], Any]) -> Any:
        """What was measured of a subject; measured now where it has not been yet.

        Args:
            subject: JSON-ready: names, sizes and settings.
            measure: Gives what JSON can hold.
        """
        if (path := self._path(subject)).exists():
            return json.loads(path.read_text())
        found = measure()
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found))
        return found

    def has(self, subject: list[Any]) -> bool:
        """Whether a subject has been measured."""
        return self._path(subject).exists()

    def forget(self) -> None:
        """Drop everything that was kept, of other commits too."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, subject: list[Any]) -> Path:
        identity = json.dumps([self._commit, subject], sort_keys=True)
        return self._folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
