"""From the towers' answer to the vector that is written: averaged with the entity's past, of unit length.

Dims: N entities, E width of a vector.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.push.errors import TowersError
from feature_repo.push.towers import PREPARE

Vectors = npt.NDArray[np.float32]


def checked(vectors: npt.NDArray[np.float32], dim: int, subject: str) -> Vectors:
    """The towers' answer, if it can be a vector of the version.

    Raises:
        TowersError: The width is another, or an element is not finite.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim or not np.isfinite(vectors).all():
        bad = int((~np.isfinite(vectors)).sum())
        raise TowersError(
            f"{subject} must be finite vectors of width {dim} (got shape {vectors.shape}, {bad} elements not finite); "
            f"export the towers again with `{PREPARE}`"
        )
    return vectors.astype(np.float32, copy=False)


def averaged(vectors: Vectors, past: pa.Array, weight: float) -> tuple[Vectors, int]:
    """Vectors continued from the past ones, of unit length, and how many had a past.

    The formula is the daily moving average's: `weight` times the past plus the rest times the present.

    Args:
        vectors: The towers' answer [N, E].
        past: Vector of each entity in the snapshot that is continued; null where it has none.
    """
    known = np.asarray(past.is_valid())
    mixed = vectors.copy()
    if known.any():
        before = np.asarray(past.drop_null().flatten(), dtype=np.float32).reshape(-1, vectors.shape[1])
        mixed[known] = weight * before + (1.0 - weight) * vectors[known]
    norms = np.linalg.norm(mixed, axis=1, keepdims=True)
    return (mixed / np.maximum(norms, 1e-12)).astype(np.float32), int(known.sum())


def vector_column(vectors: Vectors) -> pa.ListArray:
    """Matrix [N, E] as a list<float32> column."""
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel()))
