"""Mean and covariance of all vectors of a day: what population drift is told by.

Dims: N entities, e width of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainers.upstream.aggregate import Vectors

BLOCK_ROWS = 65_536

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Population:
    """The first two moments of N vectors, NaN where there are none."""

    mean: Floats
    """[e]."""
    covariance: Floats
    """[e, e], around the mean."""

    @classmethod
    def of(cls, vectors: Vectors) -> Population:
        """Moments in float64, a block of rows at a time."""
        total, second = np.zeros(vectors.shape[1]), np.zeros((vectors.shape[1],) * 2)
        for start in range(0, len(vectors), BLOCK_ROWS):
            block = vectors[start : start + BLOCK_ROWS].astype(np.float64)
            total += block.sum(axis=0)
            second += block.T @ block
        count = len(vectors) or float("nan")
        mean = total / count
        return cls(mean, second / count - np.outer(mean, mean))

    @property
    def spread(self) -> float:
        """Mean squared distance of a vector to the mean: for unit vectors between 0, all the same, and 1."""
        return float(np.trace(self.covariance))

    def mean_shift(self, other: Population) -> float:
        """Distance of the means."""
        return float(np.linalg.norm(self.mean - other.mean))

    def covariance_shift(self, other: Population) -> float:
        """Distance of the covariances over the size of the other's, in the Frobenius norm."""
        size = float(np.linalg.norm(other.covariance))
        distance = float(np.linalg.norm(self.covariance - other.covariance))
        return distance / size if size > 0.0 else float("inf") if distance > 0.0 else 0.0
