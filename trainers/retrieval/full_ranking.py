"""Ranking a whole corpus for many users: the best Pins by a model's scores plus a bias.

Dims: U users, P Pins, N biases, E width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

Vectors = npt.NDArray[np.float32]
Keys = npt.NDArray[np.int64]
ScoreRows = Callable[[int, int], Vectors]
"""Scores [stop - start, P] of the users from `start` to `stop`, in memory of their own."""

CHUNK = 256
"""Users whose scores of the whole corpus are held at once."""


def top_pins_by_bias(
    queries: Vectors, candidates: Vectors, biases: Vectors, seen: list[Keys], k: int, *, chunk: int = CHUNK
) -> Keys:
    """Positions [N, U, k] of the best Pins of each user by inner product plus each bias; see `best_by_bias`.

    Raises:
        ValueError: `k` is outside 1..P, or a vector or a bias is not finite.
    """
    return best_by_bias(inner_products(queries, candidates), len(queries), biases, seen, k, chunk=chunk)


def inner_products(queries: Vectors, candidates: Vectors) -> ScoreRows:
    """Scores of a model with a vector for each user and Pin.

    Raises:
        ValueError: A vector is not finite.
    """
    _check_finite("queries", queries)
    _check_finite("candidates", candidates)
    return lambda start, stop: queries[start:stop] @ candidates.T


def best_by_bias(
    score_rows: ScoreRows, num_users: int, biases: Vectors, seen: list[Keys], k: int, *, chunk: int = CHUNK
) -> Keys:
    """Positions [N, U, k] of the best Pins of each user under each of N biases, those already seen left out.

    Equal scores rank by position. A user with fewer than k Pins left gets -1 in the last places.

    Args:
        biases: Added to every candidate's score [N, P].
        seen: Positions of the Pins that each user has met.
        chunk: Users whose scores of the whole corpus are held at once.

    Raises:
        ValueError: `k` is outside 1..P, or a score or a bias is not finite.
    """
    if not 1 <= k <= biases.shape[1]:
        raise ValueError(f"k must be in 1..{biases.shape[1]}, the size of the corpus (got {k})")
    _check_finite("bias", biases)
    found = np.empty((len(biases), num_users, k), np.int64)
    for start in range(0, num_users, chunk):
        scores = score_rows(start, min(start + chunk, num_users))
        _check_finite("scores", scores)
        for row, positions in enumerate(seen[start : start + chunk]):
            scores[row, positions] = -np.inf
        for n, bias in enumerate(biases):
            biased = scores + bias
            best = _best(biased, k)
            best[np.isneginf(np.take_along_axis(biased, best, axis=1))] = -1
            found[n, start : start + chunk] = best
    return found


def _check_finite(name: str, values: Vectors) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite (got {int((~np.isfinite(values)).sum())} elements that are not)")


def _best(scores: Vectors, k: int) -> Keys:
    """Positions of each row's k highest scores, best first, equal ones by position.

    Selection is many times faster than sorting, but which of equal scores it keeps differs from machine to machine.
    """
    part = torch.from_numpy(scores).topk(k, dim=1, sorted=False).indices.numpy()
    least = np.take_along_axis(scores, part, axis=1).min(axis=1, keepdims=True)
    tied = np.flatnonzero((scores >= least).sum(axis=1) > k)
    if len(tied):
        above, level = scores[tied] > least[tied], scores[tied] == least[tied]
        room = k - above.sum(axis=1, keepdims=True)
        kept = above | (level & (level.cumsum(axis=1) <= room))
        part[tied] = np.nonzero(kept)[1].reshape(-1, k)
    part.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, part, axis=1), axis=1, kind="stable")
    best: Keys = np.take_along_axis(part, order, axis=1)
    return best
