"""Who is near whom: do a Pin's neighbours stay its neighbours, and do users still find the Pins they engaged with.

Dims: N entities, e width of a vector, P Pins, Q sampled queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainers.upstream.aggregate import Keys, Vectors, normalised
from trainers.upstream.frame import Frame

NEIGHBOURS, RECALL_AT = 10, 20
LEAST_PINS = 5 * NEIGHBOURS
"""Common Pins below which neighbours are not compared."""
MOST_QUERIES = 1_000
"""Pins whose neighbours are looked up, and pairs that are looked for."""
MOST_PINS = 20_000
"""Pins among which neighbours are looked for: bounds the work, and both days see the same."""
CHUNK = 128
"""Queries whose scores over all Pins are held at once."""


class ProbeFigures(NamedTuple):
    """How well users find the Pins they engaged with; NaN without pairs."""

    recall: float
    """Share of pairs whose Pin is among the user's first 20 of all Pins."""
    rank: float
    """Mean share of the other Pins that the pair's Pin is ahead of: 0.5 in a random order, whatever their number."""


@dataclass(frozen=True, slots=True)
class Probes:
    """User·Pin pairs that engaged, [N] each."""

    user_ids: Keys
    pin_ids: Keys

    def __post_init__(self) -> None:
        if self.user_ids.shape != self.pin_ids.shape:
            raise ValueError(
                f"probes must be pairs, a Pin for each user (got {len(self.user_ids)} users, {len(self.pin_ids)} Pins)"
            )

    def held_by(self, frame: Frame) -> Probes:
        """The pairs of which the frame holds both sides."""
        held = np.isin(self.user_ids, frame["user"][0]) & np.isin(self.pin_ids, frame["pin"][0])
        return Probes(self.user_ids[held], self.pin_ids[held])


def neighbour_overlap(today: tuple[Keys, Vectors], other: tuple[Keys, Vectors], *, seed: int) -> float | None:
    """Mean share of a Pin's ten nearest Pins by cosine that are so on both days, among Pins that both days hold.

    None where they hold too few in common for ten neighbours to be a choice.
    """
    common, ours, theirs = np.intersect1d(today[0], other[0], assume_unique=True, return_indices=True)
    if len(common) < LEAST_PINS:
        return None
    kept = _sample(len(common), MOST_PINS, seed)
    frames = normalised(today[1][ours[kept]]), normalised(other[1][theirs[kept]])
    queries = _sample(len(kept), MOST_QUERIES, seed)
    found = [_nearest(frame, queries) for frame in frames]
    shared = [len(np.intersect1d(a, b, assume_unique=True)) for a, b in zip(*found, strict=True)]
    return float(np.mean(shared)) / NEIGHBOURS


def probe_figures(frame: Frame, probes: Probes, *, seed: int) -> ProbeFigures:
    """Figures of the pairs by inner product among all Pins of the frame; of tied Pins the middle place counts."""
    held = probes.held_by(frame)
    (user_keys, users), (pin_keys, pins) = frame["user"], frame["pin"]
    if len(held.user_ids) == 0:
        return ProbeFigures(float("nan"), float("nan"))
    sample = _sample(len(held.user_ids), MOST_QUERIES, seed)
    rows = np.searchsorted(user_keys, held.user_ids[sample])
    targets = np.searchsorted(pin_keys, held.pin_ids[sample])
    places = np.concatenate(
        [
            _places(users[rows[start : start + CHUNK]] @ pins.T, targets[start : start + CHUNK])
            for start in range(0, len(sample), CHUNK)
        ]
    )
    ahead_of = 1.0 - places / max(len(pin_keys) - 1, 1)
    return ProbeFigures(float((places < RECALL_AT).mean()), float(ahead_of.mean()))


def _places(scores: Vectors, targets: Keys) -> npt.NDArray[np.float64]:
    """Place of each row's target, from 0; a target tied with others stands in their middle."""
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    places: npt.NDArray[np.float64] = (scores > own).sum(axis=1) + 0.5 * ((scores == own).sum(axis=1) - 1)
    return places


def _nearest(vectors: Vectors, queries: Keys) -> Keys:
    """Positions [Q, 10] of the nearest other vectors of each query."""
    found = []
    for start in range(0, len(queries), CHUNK):
        rows = queries[start : start + CHUNK]
        scores = vectors[rows] @ vectors.T
        scores[np.arange(len(rows)), rows] = -np.inf
        found.append(np.argpartition(scores, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:])
    return np.concatenate(found)


def _sample(count: int, most: int, seed: int) -> Keys:
    """Positions, all of them or so many drawn without replacement, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
