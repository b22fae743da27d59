"""A new version trained together with a linear map back to the one before.

A consumer that was trained on version v reads the newer one through the map, in v's space, until it moves. What the
map and the towers are asked for is the cosine between the mapped vector and the vector of v that a consumer got for the
same row at the same time; the towers feel that loss too, or the map could only be as good as a fit afterwards.
Source: BC-Aligner, "Learning Backward Compatible Embeddings", KDD 2022, arXiv:2206.03040. The form of the loss, its
weight and the start of the map are ours.
Dims: B batch, N entities, e width of the newer version, f width of the older one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from feature_repo.contract import ENTITIES
from trainers.upstream.aggregate import Vectors, normalised


@dataclass(frozen=True, kw_only=True, slots=True)
class Compatibility:
    """How a version is trained to be read as the one before."""

    older_dim: int
    """Width of the older version, f."""
    weight: float = 1.0
    """Weight of the compatibility loss beside the supervised ones; docs/upgrades.md has what others cost."""

    def __post_init__(self) -> None:
        if self.older_dim < 1:
            raise ValueError(f"older_dim must be at least 1 (got {self.older_dim})")
        if self.weight < 0.0:
            raise ValueError(f"weight must be at least 0 (got {self.weight})")


def target_input(entity: str) -> str:
    """Input of a row with the older version's vector of its user or Pin, [B, f + 1]; the last element says present."""
    return f"older_{entity}"


class BackwardMap(nn.Module):
    """x -> x B: vectors of a newer version to the space of an older one; no bias, so that 0 stays nothing."""

    def __init__(self, dim: int, older_dim: int) -> None:
        super().__init__()
        # The new space starts out as the old one, as far as widths allow: nothing random, and nothing to unlearn.
        self.matrix = nn.Parameter(torch.eye(dim, older_dim))

    def forward(self, vectors: Float[Tensor, "B e"]) -> Float[Tensor, "B f"]:
        """Mapped vectors, of any length."""
        return vectors @ self.matrix

    def compatible(self, vectors: Vectors) -> Vectors:
        """Vectors [N, e] in the older space [N, f], of unit length."""
        return compatible(vectors, [self])

    def save(self, file: Path, notes: Mapping[str, Any] | None = None) -> None:
        """Write the map; a reader sees the file before or the new one, whole."""
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.partial")
        matrix = np.ascontiguousarray(self.matrix.detach().numpy())
        save_file({"backward": matrix}, partial, metadata={"notes": json.dumps(dict(notes or {}))})
        partial.replace(file)

    @classmethod
    def load(cls, file: Path) -> BackwardMap:
        """The map of a file that `save` wrote.

        Raises:
            ValueError: The file holds something else.
        """
        with safe_open(file, framework="np") as opened:
            if list(opened.keys()) != ["backward"]:
                raise ValueError(f"{file} must hold a backward map (got tensors {sorted(opened.keys())})")
            matrix = opened.get_tensor("backward")
        found = cls(*matrix.shape)
        found.matrix.data = torch.from_numpy(matrix.copy())
        return found.requires_grad_(False)

    @classmethod
    def fitted(cls, newer: Vectors, older: Vectors) -> BackwardMap:
        """The map with the least squared error over rows of both, fitted afterwards: a yardstick for joint training."""
        matrix = np.linalg.lstsq(newer.astype(np.float64), older.astype(np.float64), rcond=1e-6)[0]
        found = cls(*matrix.shape)
        found.matrix.data = torch.from_numpy(matrix.astype(np.float32))
        return found.requires_grad_(False)


def compatible(vectors: Vectors, maps: Sequence[BackwardMap]) -> Vectors:
    """Vectors of the newest version in the space of an older one, of unit length.

    Args:
        maps: From the newest version backwards: its own map first, then that of the version before it, and so on.

    Raises:
        ValueError: A width does not fit, or there is no map.
    """
    if not maps:
        raise ValueError("at least one map must be given (got none): a version's own vectors need none")
    matrix = maps[0].matrix.detach().numpy().astype(np.float64)
    for each in maps[1:]:
        following = each.matrix.detach().numpy().astype(np.float64)
        _check_width(matrix.shape[1], len(following))
        matrix = matrix @ following
    _check_width(vectors.shape[1], len(matrix))
    return normalised((vectors.astype(np.float64) @ matrix).astype(np.float32))


def _check_width(got: int, wanted: int) -> None:
    if got != wanted:
        raise ValueError(
            f"a backward map of width {wanted} must get vectors of that width (got {got}); check the order"
        )


def compatibility_loss(
    backward: BackwardMap, embedded: Mapping[str, Float[Tensor, "B e"]], inputs: Mapping[str, Tensor]
) -> Float[Tensor, ""]:
    """Mean of 1 − cosine between mapped and older vectors, over the rows that have one; users and Pins weigh the same.

    0 with a gradient of 0 where no row has an older vector, as in histories from before the older version's time.

    Args:
        embedded: Vectors of each entity in the newer version.
        inputs: A row's inputs; `target_input(entity)` may be absent.
    """
    parts = [
        _masked_distance(backward(embedded[entity]), inputs[target_input(entity)])
        for entity in ENTITIES
        if target_input(entity) in inputs
    ]
    return torch.stack(parts).mean() if parts else torch.zeros(())


def _masked_distance(mapped: Float[Tensor, "B f"], target: Float[Tensor, "B g"]) -> Float[Tensor, ""]:
    vectors, present = target[:, :-1], target[:, -1]
    distances = 1.0 - F.cosine_similarity(mapped, vectors, dim=1, eps=1e-6)
    return (distances * present).sum() / present.sum().clamp(min=1.0)
