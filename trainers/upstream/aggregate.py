"""Moving average of an entity's embeddings over days, inside one vector space.

Source: DERM, arXiv:2509.04337: E_agg(t) = w E_agg(t−1) + (1−w) E_daily(t), best w = 0.8 on the past.
Dims: N entities, E width of an embedding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def keep_last(keys: Keys, vectors: Vectors) -> tuple[Keys, Vectors]:
    """One vector a key, the last of the day, sorted by key."""
    unique, from_end = np.unique(keys[::-1], return_index=True)
    return unique, vectors[len(keys) - 1 - from_end]


def moving_average(past: tuple[Keys, Vectors], today: tuple[Keys, Vectors], weight: float) -> tuple[Keys, Vectors]:
    """Average of today's entities with their past, brought back to unit length, sorted by key.

    An entity without a past starts at today's vector. An entity that has no vector today is left out: it has left the
    retention window.

    Args:
        weight: Weight w of the past, in [0, 1).

    Raises:
        ValueError: The widths differ, so the vectors cannot be of one space.
    """
    past_keys, past_vectors = keep_last(*past)
    keys, vectors = keep_last(*today)
    if len(past_keys) == 0:
        return keys, normalised(vectors)
    if past_vectors.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"averages stay inside one space: widths must agree (got {past_vectors.shape[1]} and {vectors.shape[1]}); "
            "publish a new embedding version instead"
        )
    slots = np.searchsorted(past_keys, keys).clip(max=len(past_keys) - 1)
    known = past_keys[slots] == keys
    mixed = vectors.copy()
    mixed[known] = weight * past_vectors[slots[known]] + (1.0 - weight) * vectors[known]
    return keys, normalised(mixed)


def normalised(vectors: Vectors) -> Vectors:
    """Rows of unit length; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return scaled
