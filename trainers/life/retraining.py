"""Where the models of a release under training wait for it: a folder for each set of embedding versions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

RETRAINING = "retraining"
_BETWEEN = "__"


def retraining_folder(run: Path, keys: Iterable[str]) -> Path:
    """Folder of the models that are trained on these versions."""
    return run / RETRAINING / _BETWEEN.join(keys)


def retraining_folders_of(run: Path, key: str) -> list[Path]:
    """Folders of models on a version that no release came of."""
    # One that a prune has begun to delete has a name made from its own.
    names = {each.name.removeprefix(".").removesuffix(".pruned") for each in (run / RETRAINING).glob("*")}
    return [run / RETRAINING / name for name in sorted(names) if key in name.split(_BETWEEN)]
