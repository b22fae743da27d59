"""Trained models that wait in files for the release they are for, each with a fingerprint of what it was trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

Arrays = Mapping[str, npt.NDArray[Any]]


class KeptModels:
    """Models in a folder, a safetensors file each.

    Args:
        folder: Made with the first model.
        fingerprint: Of everything that all of them are trained on; a file with another one does not count.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self._fingerprint = fingerprint

    def has(self, name: str) -> bool:
        """Whether a model of that name was trained on the same."""
        file = self._file(name)
        if not file.is_file():
            return False
        with safe_open(file, framework="numpy") as opened:
            return bool((opened.metadata() or {}).get("fingerprint") == self._fingerprint)

    def load(self, name: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Arrays and notes of a model that is there."""
        with safe_open(self._file(name), framework="numpy") as opened:
            arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            return arrays, json.loads(opened.metadata()["notes"])

    def save(self, name: str, arrays: Arrays, notes: Mapping[str, Any]) -> None:
        """Keep a model; whoever looks sees all of it or nothing, also after a power cut."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self._file(name)
        partial = file.with_name(f".{file.name}.partial")
        metadata = {"fingerprint": self._fingerprint, "notes": json.dumps(dict(notes))}
        # A column of a matrix is no memory in a row, which is what safetensors writes.
        save_file({key: np.asarray(value, order="C") for key, value in arrays.items()}, partial, metadata=metadata)
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(file)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
