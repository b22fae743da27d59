"""The sub-steps of a refreshed day: each is recorded when it is done, with what it cost, and never done twice."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from feature_repo.contract import write_atomically
from trainers.markers import plain
from trainers.peak_memory import PeakMemory


@dataclass(frozen=True, kw_only=True, slots=True)
class Substep:
    """A sub-step that is done."""

    name: str
    seconds: float
    """Wall time."""
    peak_mb: float
    """Highest resident memory, in MiB."""
    figures: Mapping[str, Any]
    """What it reports."""


class Workspace:
    """Folder of a day under way: what is not visible yet, and a record of each sub-step that is done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def do(self, name: str, work: Callable[[], Mapping[str, Any]]) -> Substep:
        """The sub-step of that name, done now unless it is already."""
        done = self.find(name)
        if done is not None:
            return done
        started = time.perf_counter()
        with PeakMemory() as memory:
            figures = work()
        seconds = round(time.perf_counter() - started, 3)
        done = Substep(name=name, seconds=seconds, peak_mb=round(memory.peak_mb, 1), figures=plain(figures))
        write_atomically(self._file(name), json.dumps(asdict(done)) + "\n")
        return done

    def find(self, name: str) -> Substep | None:
        """A sub-step that is done; none where it is not."""
        file = self._file(name)
        return Substep(**json.loads(file.read_text())) if file.is_file() else None

    def forget(self, name: str) -> None:
        """Have a sub-step done again."""
        self._file(name).unlink(missing_ok=True)

    def note(self, name: str, value: Any) -> None:
        """Keep a fact until the day is over."""
        write_atomically(self.folder / f"{name}.json", json.dumps(value) + "\n")

    def noted(self, name: str) -> Any:
        """A fact that was kept; none where it was not."""
        file = self.folder / f"{name}.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def clear(self) -> None:
        """Remove everything at once: a part of it would be taken for sub-steps that are done."""
        gone = self.folder.with_name(f".{self.folder.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        if self.folder.is_dir():
            self.folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self.folder / "done" / f"{name}.json"


def move(source: Path, target: Path) -> None:
    """Put a file in its place, in one step; repeated, it finds the file there already.

    Raises:
        FileNotFoundError: It is at neither place.
    """
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    elif not target.exists():
        raise FileNotFoundError(f"{target} must be there once {source} is not (got neither); refresh the day again")
