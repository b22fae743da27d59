"""How often each Pin appears in the training stream: Q(p) for the logQ correction.

Source: Cormode and Muthukrishnan, "An Improved Data Stream Summary: The Count-Min Sketch", 2005; conservative update
after Estan and Varghese, "New Directions in Traffic Measurement and Accounting", 2002; in a ranking system, Yi et al.,
"Sampling-Bias-Corrected Neural Modeling", RecSys 2019.
Dims: N ids, R rows of the sketch, W cells a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class FrequencyEstimate(Protocol):
    """Counts of a stream of ids, read as log probabilities."""

    def update(self, ids: Ids) -> None:
        """Count one occurrence of each element, repeated ones repeatedly."""
        ...

    def log_probability(self, ids: Ids) -> npt.NDArray[np.float32]:
        """Log of each id's share of the stream; finite also for an id never seen, which counts as seen once."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CountMinConfig:
    """Size and memory of a count-min sketch."""

    width: int = 1 << 16
    """Cells a row, W; a power of two. The overcount of an id is about total / W in the worst row."""
    depth: int = 4
    """Rows with a hash function each, R; the smallest of an id's cells counts."""
    half_life: float = 0.0
    """Observations after which a count has halved, so that Q follows the stream; 0 to never forget."""
    seed: int = 0
    """Seed of the hash functions."""

    def __post_init__(self) -> None:
        if self.width < 2 or self.width & (self.width - 1):
            raise ValueError(f"width must be a power of two and at least 2 (got {self.width})")
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1 (got {self.depth})")
        if self.half_life < 0.0:
            raise ValueError(f"half_life must be at least 0 (got {self.half_life})")


class CountMinSketch:
    """Counts that are never too low, in memory that does not grow with the number of Pins."""

    def __init__(self, config: CountMinConfig) -> None:
        self.config = config
        self.table = np.zeros((config.depth, config.width))
        self.total = 0.0
        random = np.random.default_rng(config.seed)
        # Multiply-shift hashing needs odd multipliers.
        self._multipliers = random.integers(0, 2**64, size=(config.depth, 1), dtype=np.uint64) | np.uint64(1)
        self._offsets = random.integers(0, 2**64, size=(config.depth, 1), dtype=np.uint64)

    def update(self, ids: Ids) -> None:
        """Count each element once, after decaying what was counted before.

        Ids of one call are raised together, each cell to the largest claim on it. That is the conservative update with
        ties broken in favour of fewer counts, and an id's cells still never fall below its true count.
        """
        if ids.size == 0:
            return
        if self.config.half_life:
            factor = 0.5 ** (ids.size / self.config.half_life)
            self.table *= factor
            self.total *= factor
        unique, counts = np.unique(ids, return_counts=True)
        cells = self._cells(unique)
        raised = np.take_along_axis(self.table, cells, axis=1).min(axis=0) + counts
        for row, row_cells in zip(self.table, cells, strict=True):
            np.maximum.at(row, row_cells, raised)
        self.total += float(ids.size)

    def count(self, ids: Ids) -> Floats:
        """Estimated occurrences of each id, at least the true (decayed) count."""
        estimates: Floats = np.take_along_axis(self.table, self._cells(ids), axis=1).min(axis=0)
        return estimates

    def log_probability(self, ids: Ids) -> npt.NDArray[np.float32]:
        """Log of each id's estimated share of the stream, at most 0; see `FrequencyEstimate`."""
        return _log_share(self.count(ids), self.total)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """State as arrays, for a safetensors file."""
        hashes = {"multipliers": self._multipliers.copy(), "offsets": self._offsets.copy()}
        return {"table": self.table.copy(), "total": np.array([self.total]), **hashes}

    @classmethod
    def from_arrays(cls, config: CountMinConfig, arrays: Mapping[str, npt.NDArray[Any]]) -> CountMinSketch:
        """Sketch that continues where `to_arrays` was taken.

        Raises:
            ValueError: The arrays come from a sketch of another size.
        """
        sketch = cls(config)
        if arrays["table"].shape != sketch.table.shape:
            raise ValueError(f"table must have shape {sketch.table.shape} (got {arrays['table'].shape})")
        sketch.table[:] = arrays["table"]
        sketch.total = float(arrays["total"][0])
        sketch._multipliers[:] = arrays["multipliers"]
        sketch._offsets[:] = arrays["offsets"]
        return sketch

    def _cells(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Cell of each id in each row, [R, N]."""
        shift = np.uint64(64 - (self.config.width.bit_length() - 1))
        mixed = ids.astype(np.int64).view(np.uint64) * self._multipliers + self._offsets
        return (mixed >> shift).astype(np.int64)


class ExactFrequency:
    """True counts, one for each id seen; for small corpora, and to judge a sketch by."""

    def __init__(self) -> None:
        self._ids: Ids = np.empty(0, np.int64)
        self._counts: Floats = np.empty(0)
        self.total = 0.0

    def update(self, ids: Ids) -> None:
        """Count each element once."""
        unique, counts = np.unique(ids, return_counts=True)
        merged, inverse = np.unique(np.concatenate([self._ids, unique]), return_inverse=True)
        self._counts = np.bincount(inverse, np.concatenate([self._counts, counts])).astype(np.float64)
        self._ids = merged
        self.total += float(ids.size)

    def count(self, ids: Ids) -> Floats:
        """Occurrences of each id."""
        if self._ids.size == 0:
            return np.zeros(ids.shape)
        slots = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        return np.where(self._ids[slots] == ids, self._counts[slots], 0.0)

    def log_probability(self, ids: Ids) -> npt.NDArray[np.float32]:
        """Log of each id's share of the stream, at most 0; see `FrequencyEstimate`."""
        return _log_share(self.count(ids), self.total)


def _log_share(counts: Floats, total: float) -> npt.NDArray[np.float32]:
    return np.log(np.maximum(counts, 1.0) / max(total, 1.0)).clip(max=0.0).astype(np.float32)
