"""Markers of complete steps: what a step saw, what it left and what it cost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_repo.contract import write_atomically

MARKERS_DIR = "steps"
_TRANSIENT_SUFFIXES = ("-wal", "-shm", "-journal", ".lock", ".tmp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Marker:
    """Proof that a step finished; written after its outputs."""

    step: str
    """Name of the step."""
    fingerprint: str
    """Hash of the step's inputs and of every step before it."""
    inputs: Mapping[str, str]
    """The inputs by name, to say later which of them changed."""
    files: Sequence[str]
    """Files that the step left, relative to the run."""
    seconds: float
    """Wall time."""
    peak_mb: float
    """Highest resident memory, in MiB."""
    figures: Mapping[str, Any]
    """What the step reports."""
    finished: str
    """UTC moment at which it finished, ISO 8601."""


def marker_file(directory: Path, step: str) -> Path:
    """Where the marker of a step lies."""
    return directory / MARKERS_DIR / f"{step}.json"


def read_marker(directory: Path, step: str) -> Marker | None:
    """Marker of a step; none where there is none that this program could have written."""
    file = marker_file(directory, step)
    if not file.is_file():
        return None
    try:
        return Marker(**json.loads(file.read_text()))
    except (TypeError, ValueError):
        return None


def write_marker(directory: Path, marker: Marker) -> None:
    """Write a marker in one step; figures become plain JSON."""
    text = json.dumps(plain(dataclasses.asdict(marker)), indent=2, allow_nan=False)
    write_atomically(marker_file(directory, marker.step), text + "\n")


def fingerprint(step: str, inputs: Mapping[str, str], upstream: str) -> str:
    """Hash of a step's inputs, chained to the fingerprint of the step before it."""
    text = json.dumps([step, dict(inputs), upstream], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def files_under(directory: Path, outputs: Sequence[str]) -> list[str]:
    """Files at or under `outputs`, relative to the run, without hidden ones and those of a database at work."""
    found: list[str] = []
    for output in outputs:
        root = directory / output
        candidates = sorted(root.rglob("*")) if root.is_dir() else [root]
        found += [str(path.relative_to(directory)) for path in candidates if _is_kept(path, directory)]
    return found


def first_absent(directory: Path, files: Sequence[str]) -> str | None:
    """First of `files` that is no longer there."""
    return next((file for file in files if not (directory / file).is_file()), None)


def plain(value: Any) -> Any:
    """The value as JSON can hold it: numpy scalars as numbers, what is not finite as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return plain(value.item()) if hasattr(value, "item") else str(value)


def _is_kept(path: Path, directory: Path) -> bool:
    hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(directory).parts)
    return path.is_file() and not hidden and not path.name.endswith(_TRANSIENT_SUFFIXES)
