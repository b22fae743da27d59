"""Sums over entities that two frames hold: all that an alignment needs of the vectors, in e×e numbers.

Dims: N entities of a block, e width of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainers.upstream.aggregate import Keys, Vectors

Floats = npt.NDArray[np.float64]
BLOCK_ROWS = 16_384
"""Entities that are looked at at once: bounds the memory of an alignment, whatever the size of a frame."""


@dataclass(slots=True)
class CrossSums:
    """Sums [e, e] over the entities of one kind that two frames hold."""

    cross: Floats
    """Σ xᵀy, x of the day and y of the reference."""
    day: Floats
    """Σ xᵀx."""
    reference: Floats
    """Σ yᵀy."""
    count: int = 0
    """Entities summed over."""

    @classmethod
    def zeros(cls, dim: int) -> CrossSums:
        """Sums over nothing yet."""
        return cls(np.zeros((dim, dim)), np.zeros((dim, dim)), np.zeros((dim, dim)))

    def update(self, day: Vectors, reference: Vectors) -> None:
        """Add entities: a row of each, [N, e]."""
        if day.shape != reference.shape:
            raise ValueError(f"both must have a row per entity (got shapes {day.shape} and {reference.shape})")
        x, y = day.astype(np.float64), reference.astype(np.float64)
        self.cross += x.T @ y
        self.day += x.T @ x
        self.reference += y.T @ y
        self.count += len(x)

    def merge(self, other: CrossSums) -> None:
        """Add the sums of other entities."""
        self.cross += other.cross
        self.day += other.day
        self.reference += other.reference
        self.count += other.count


def common_blocks(
    day: tuple[Keys, Vectors], reference: tuple[Keys, Vectors], block_rows: int = BLOCK_ROWS
) -> Iterator[tuple[Vectors, Vectors]]:
    """Vectors of the entities that both hold, a row of each, so many of the day's at a time; keys increase strictly."""
    keys, vectors = day
    known, onto = reference
    for start in range(0, len(keys) if len(known) else 0, block_rows):
        wanted = keys[start : start + block_rows]
        slots = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        common = known[slots] == wanted
        yield vectors[start : start + block_rows][common], onto[slots[common]]
