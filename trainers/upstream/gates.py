"""Gates of a day's embeddings: figures that must lie inside bounds before anything of the day becomes visible.

Figures compare the day's own vectors, aligned and not yet averaged, with those of the day before: in an average of
which 0.8 are the past a broken day would hide. A figure that cannot be computed, for want of a day before or of enough
pairs, is absent and not judged; one that comes out as NaN fails.
Dims: N entities, e width of a vector, P Pins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from feature_repo.contract import ENTITIES
from trainers.upstream.aggregate import Keys, Vectors
from trainers.upstream.frame import Frame
from trainers.upstream.gate_recipes import BOUNDS, GateRecipe
from trainers.upstream.gate_recipes import default as default_gates
from trainers.upstream.neighbours import Probes, neighbour_overlap, probe_figures
from trainers.upstream.population import Population

__all__ = ["BOUNDS", "Failure", "GateFailedError", "GateRecipe", "Probes", "check", "failures", "gate_figures"]

LEAST_PROBES = 100
"""Pairs below which figures of probes are left out: at a recall of a tenth ten pairs would decide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A figure outside its bound."""

    figure: str
    """Name of the figure, such as `coverage_user`."""
    value: float
    bound: float
    direction: Literal["at least", "at most"]
    """On which side of the bound the figure must lie."""

    def __str__(self) -> str:
        return f"{self.figure} must be {self.direction} {self.bound:g} (got {self.value:.4g})"


class GateFailedError(RuntimeError):
    """A day stays invisible, and the day before live."""

    def __init__(self, subject: str, failed: tuple[Failure, ...]) -> None:
        self.failed = failed
        super().__init__(
            f"{subject} stays invisible, the day before stays live: {'; '.join(map(str, failed))}. Find out what "
            "changed in the data or the training; if the new space is meant, publish it as a version of its own with "
            "--as-new-version"
        )


def gate_figures(
    today: Frame,
    yesterday: Frame | None = None,
    *,
    active: Mapping[str, Keys] | None = None,
    probes: Probes | None = None,
    reference: Frame | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Every figure that the given frames allow, by name.

    Args:
        today: Aligned vectors of the day, before averaging.
        yesterday: The same of the day before; none on the first day of a version.
        active: Keys of the entities that ought to have a vector today.
        probes: User·Pin pairs that engaged, of the last day before the cut-off: both days are judged on the same.
        reference: The version's reference frame.
        seed: Of the Pins and pairs that are sampled; the same for every day, so that days can be compared.
    """
    figures = {f"{name}_{e}": value for e in ENTITIES for name, value in _own_figures(today[e][1]).items()}
    kept = {entity: _finite(*today[entity]) for entity in ENTITIES}
    for entity, keys in (active or {}).items():
        figures[f"coverage_{entity}"] = _coverage(kept[entity][0], keys)
    if probes is not None:
        figures |= _probe_figures(kept, probes, seed)
    if reference is not None:
        figures |= _drift(kept, reference, "since_reference")
    if yesterday is not None:
        figures |= _to_yesterday(kept, yesterday, seed) | _drift(kept, yesterday, "to_yesterday")
    if probes is not None and yesterday is not None:
        figures |= _recall_to_yesterday(kept, yesterday, probes, seed)
    return figures


def failures(figures: Mapping[str, float], recipe: GateRecipe) -> tuple[Failure, ...]:
    """Figures outside the recipe's bounds, in the order of `BOUNDS`."""
    found = []
    for bound in BOUNDS:
        limit = getattr(recipe, bound.field)
        for name in bound.figures(figures):
            value = figures[name]
            # Negated, so that NaN fails.
            if not (value >= limit if bound.direction == "at least" else value <= limit):
                found.append(Failure(figure=name, value=value, bound=limit, direction=bound.direction))
    return tuple(found)


def check(subject: str, figures: Mapping[str, float], recipe: GateRecipe | None = None) -> None:
    """Do nothing where every figure is inside its bound.

    Args:
        subject: What is judged, such as `ctr_v1 of 2024-03-01`.

    Raises:
        GateFailedError: Some are not; each is named with its value and bound.
    """
    found = failures(figures, recipe or default_gates())
    if found:
        raise GateFailedError(subject, found)


def _own_figures(vectors: Vectors) -> dict[str, float]:
    """What needs no other frame."""
    if len(vectors) == 0:
        return {"finite": float("nan")}
    finite = np.isfinite(vectors).all(axis=1)
    found = {"finite": float(finite.mean())}
    if finite.any():
        low, high = np.quantile(np.linalg.norm(vectors[finite], axis=1), (0.01, 0.99))
        found |= {"norm_p01": float(low), "norm_p99": float(high), "spread": Population.of(vectors[finite]).spread}
    return found


def _to_yesterday(today: Frame, yesterday: Frame, seed: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for entity in ENTITIES:
        (keys, vectors), (past_keys, past) = today[entity], yesterday[entity]
        figures[f"entities_to_yesterday_{entity}"] = len(keys) / len(past_keys) if len(past_keys) else float("nan")
        _, ours, theirs = np.intersect1d(keys, past_keys, assume_unique=True, return_indices=True)
        found = _cosine_figures(vectors[ours], past[theirs])
        figures |= {f"{name}_{entity}": value for name, value in found.items()}
    overlap = neighbour_overlap(today["pin"], yesterday["pin"], seed=seed)
    return figures if overlap is None else figures | {"neighbour_overlap_at_10": overlap}


def _recall_to_yesterday(today: Frame, yesterday: Frame, probes: Probes, seed: int) -> dict[str, float]:
    """Recall of today's vectors over that of yesterday's on the same pairs, where there are enough to tell."""
    shared = probes.held_by(today).held_by(yesterday)
    if len(shared.user_ids) < LEAST_PROBES:
        return {}
    now, before = (probe_figures(frame, shared, seed=seed).recall for frame in (today, yesterday))
    return {"probe_recall_to_yesterday": now / before} if before > 0.0 else {}


def _cosine_figures(vectors: Vectors, past: Vectors) -> dict[str, float]:
    """Median and 5 % quantile of the cosine of each row's two vectors, and the correlation of all rows.

    Where vectors stand close around their mean, the cosines of strangers are near 1 as well; the correlation, which is
    taken around the means, tells those apart.
    """
    if len(vectors) == 0:
        return dict.fromkeys(("cosine_median", "cosine_p05", "correlation"), float("nan"))
    x, y = vectors.astype(np.float64), past.astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    median, low = np.quantile(np.einsum("ne,ne->n", x, y) / np.maximum(norms, 1e-12), (0.5, 0.05))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    correlation = float((x * y).sum()) / size if size > 0.0 else float("nan")
    return {"cosine_median": float(median), "cosine_p05": float(low), "correlation": correlation}


def _drift(today: Frame, other: Frame, suffix: str) -> dict[str, float]:
    """How far the populations are apart."""
    found = {}
    for entity in ENTITIES:
        ours, theirs = Population.of(today[entity][1]), Population.of(other[entity][1])
        found[f"mean_shift_{suffix}_{entity}"] = ours.mean_shift(theirs)
        found[f"covariance_shift_{suffix}_{entity}"] = ours.covariance_shift(theirs)
    return found


def _probe_figures(today: Frame, probes: Probes, seed: int) -> dict[str, float]:
    if len(probes.held_by(today).user_ids) < LEAST_PROBES:
        return {}
    found = probe_figures(today, probes, seed=seed)
    return {"probe_recall_at_20": found.recall, "probe_rank": found.rank}


def _coverage(keys: Keys, active: Keys) -> float:
    return float(np.isin(active, keys).mean()) if len(active) else 1.0


def _finite(keys: Keys, vectors: Vectors) -> tuple[Keys, Vectors]:
    kept = np.isfinite(vectors).all(axis=1)
    return (keys, vectors) if kept.all() else (keys[kept], vectors[kept])
