"""Encoded rows on disk, an array a file: training reads any row by its position, memory holds what the system caches.

So a walk may shuffle more rows than fit into memory, in the order and with the values of arrays in memory.
Dims: N rows, M entries.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from feature_repo.encoding import Array
from trainers.data.examples import Examples, Rows


def mapped(parts: Iterable[Examples], num_rows: int, folder: Path) -> dict[str, Array]:
    """Inputs of all parts in order as arrays [N, …] that lie in files, one part at a time in memory.

    The files have no name: their room is free again when whoever maps them has ended, killed or not.

    Args:
        num_rows: Rows of all parts together, N.
        folder: Where there is room for them.

    Raises:
        ValueError: There is no part, or the parts have other rows than N.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Array] = {}
    done = 0
    for part in parts:
        for name, values in part.inputs.items():
            if name not in arrays:
                arrays[name] = _nameless(values, num_rows, folder)
            arrays[name][done : done + len(part)] = values
        done += len(part)
    if not arrays:
        raise ValueError("at least one part must be given (got none): no impressions; move the dataset's window")
    if done != num_rows:
        raise ValueError(f"the parts must have {num_rows} rows together (got {done})")
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _nameless(like: Array, num_rows: int, folder: Path) -> Array:
    """An array of so many rows in a file that has no name."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.asarray(np.memmap(file, dtype=like.dtype, mode="w+", shape=(num_rows, *like.shape[1:])))


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenExamples(Examples):
    """Entries that each stand for one of the rows that `inputs` hold; a row's inputs are read when it is asked for."""

    order: Rows
    """Row of each entry [M]; labels are by entry."""
    beside: dict[str, Array] = field(default_factory=dict)
    """Further inputs by entry."""

    def take(self, rows: Rows) -> Examples:
        """The entries at these positions, in memory."""
        positions = self.order[rows]
        found = {name: np.asarray(values[positions]) for name, values in self.inputs.items()}
        further = {name: values[rows] for name, values in self.beside.items()}
        return Examples(inputs=found | further, labels=self.labels[rows])

    def tensors(self, rows: Rows) -> dict[str, Tensor]:
        """Inputs of these entries as tensors: float32, and int64 for indices."""
        return self.take(rows).all_tensors()

    def with_inputs(self, inputs: dict[str, Array]) -> ChosenExamples:
        """The same entries with these inputs, by entry, added or replaced."""
        return replace(self, beside=self.beside | inputs)
