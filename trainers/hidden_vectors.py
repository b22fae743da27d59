"""Vectors hidden from some training rows, so that a model has met what it gets when a store lacks them.

Hiding each entity's vectors apart shows a model rows without the user's, or the Pin's. Rows without any would then be
rare, yet they are what an outage or a late refresh makes of all rows at once: a share of the rows loses everything.
Dims: B batch, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def hide_vectors(
    inputs: dict[str, Tensor], groups: Sequence[Sequence[str]], *, alone: float, together: float
) -> dict[str, Tensor]:
    """The inputs with vectors of some rows zeroed, their flags included, as a missing one is encoded.

    Args:
        inputs: Vector inputs are [B, D + 1], the flag last.
        groups: Names of the vector inputs of each entity.
        alone: Share of the rows that lose a group, drawn for each group.
        together: Share of the rows that lose all groups.
    """
    if not groups or alone == together == 0.0:
        return inputs
    num_rows = len(inputs[groups[0][0]])
    kept_by_group = [torch.rand(num_rows, 1) >= alone for _ in groups]
    kept = torch.rand(num_rows, 1) >= together if together else torch.ones(num_rows, 1, dtype=torch.bool)
    hidden = {
        name: inputs[name] * (own & kept).float()
        for group, own in zip(groups, kept_by_group, strict=True)
        for name in group
    }
    return inputs | hidden
