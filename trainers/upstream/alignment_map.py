"""A change of basis that keeps every user·Pin dot product, and its file.

Dims: N entities, e width of a vector.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

from trainers.upstream.aggregate import Vectors

Floats = npt.NDArray[np.float64]
BLOCK_ROWS = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentMap:
    """x -> x A for users and y -> y A^-T for Pins; orthogonal ones are the same matrix for both."""

    kind: str
    """`procrustes`, `svd_procrustes` or `identity`."""
    user: Floats
    """A [e, e]."""
    pin: Floats
    """A^-T [e, e]."""
    rank: int
    """Directions that the data determined."""
    stretch: float = 0.0
    """Share of the standard form's stretch in it; 0 for a turn."""
    residual: float = float("nan")
    """Mean cosine to the reference after the map; NaN where it was not measured."""

    @classmethod
    def identity(cls, dim: int) -> AlignmentMap:
        """The map that changes nothing: what a version's first day is brought to its own frame with."""
        return cls(kind="identity", user=np.eye(dim), pin=np.eye(dim), rank=dim, residual=1.0)

    def apply(self, entity: str, vectors: Vectors) -> Vectors:
        """Mapped vectors [N, e], float32, computed in float64.

        Raises:
            ValueError: The width is not the map's.
        """
        matrix = self.user if entity == "user" else self.pin
        if vectors.ndim != 2 or vectors.shape[1] != len(matrix):
            raise ValueError(f"vectors must be [N, {len(matrix)}] for this map (got shape {vectors.shape})")
        mapped = np.empty(vectors.shape, np.float32)
        for start in range(0, len(vectors), BLOCK_ROWS):
            mapped[start : start + BLOCK_ROWS] = vectors[start : start + BLOCK_ROWS].astype(np.float64) @ matrix
        return mapped

    def with_residual(self, residual: float) -> AlignmentMap:
        """The same map with what was measured of it."""
        return replace(self, residual=residual)

    @property
    def dot_error(self) -> float:
        """Largest change of a dot product of unit vectors in float64: the norm of A·A^-Tᵀ − 1."""
        return float(np.linalg.norm(self.user @ self.pin.T - np.eye(len(self.user)), 2))

    def save(self, file: Path, notes: Mapping[str, Any] | None = None) -> None:
        """Write the map; a reader sees the file before or the new one, whole."""
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.partial")
        facts = {"kind": self.kind, "rank": self.rank, "stretch": self.stretch, "notes": dict(notes or {})}
        if np.isfinite(self.residual):
            facts["residual"] = self.residual
        tensors = {"user": np.ascontiguousarray(self.user), "pin": np.ascontiguousarray(self.pin)}
        save_file(tensors, partial, metadata={"map": json.dumps(facts)})
        partial.replace(file)

    @classmethod
    def load(cls, file: Path) -> AlignmentMap:
        """The map of a file that `save` wrote.

        Raises:
            ValueError: The file holds something else.
        """
        with safe_open(file, framework="np") as opened:
            facts = json.loads((opened.metadata() or {}).get("map", "{}"))
            if "kind" not in facts:
                raise ValueError(f"{file} must hold an alignment map (got tensors {sorted(opened.keys())})")
            user, pin = opened.get_tensor("user"), opened.get_tensor("pin")
        residual = facts.get("residual", float("nan"))
        known = {name: facts[name] for name in ("kind", "rank", "stretch")}
        return cls(**known, user=user, pin=pin, residual=residual)
