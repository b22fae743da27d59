"""Standardisation by moments of what was seen so far, which a walk forward in time can use without looking ahead.

Dims: B batch, N columns.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainers.parallel import summed_over_batch


class RunningNorm(nn.Module):
    """Numbers centred and scaled column by column by the running moments of those that were present.

    Unlike batch normalisation it ignores missing numbers, treats a row the same in training and evaluation, and does
    not let one row influence another.
    """

    count: Tensor
    mean: Tensor
    mean_square: Tensor

    def __init__(self, num_columns: int, *, window: float = 200_000.0) -> None:
        """
        Args:
            window: Rows after which older ones fade.
        """
        super().__init__()
        self.window = window
        for name in ("count", "mean", "mean_square"):
            self.register_buffer(name, torch.zeros(num_columns))

    def forward(self, values: Float[Tensor, "B N"], missing: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """Standardised numbers; 0 where `missing` is 1."""
        present = 1.0 - missing
        if self.training:
            self._update(values * present, present)
        variance = (self.mean_square - self.mean.square()).clamp_min(1e-4)
        return (values - self.mean) * variance.rsqrt() * present

    @torch.no_grad()
    def _update(self, values: Tensor, present: Tensor) -> None:
        sums = torch.stack([present.sum(dim=0), values.sum(dim=0), values.square().sum(dim=0)])
        seen, total, squares = summed_over_batch(sums)
        share = seen / (self.count + seen).clamp(min=1.0)
        divisor = seen.clamp(min=1.0)
        self.mean += share * (total / divisor - self.mean)
        self.mean_square += share * (squares / divisor - self.mean_square)
        self.count.copy_((self.count + seen).clamp(max=self.window))
