"""Explicit feature crossing of bounded degree (DCN V2).

Source: Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank
Systems", arXiv:2008.13535, section 3.
Dims: B batch, K input width, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossNetworkConfig:
    """Sizes of a cross network."""

    input_dim: int
    """Width of the input, and of the output: K."""
    num_layers: int = 2
    """Cross layers; the output holds crosses up to degree `num_layers + 1`."""
    rank: int = 0
    """Rank R of each layer's matrix; 0 for a full K × K matrix."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if not 0 <= self.rank <= self.input_dim:
            raise ValueError(f"rank must be in 0..{self.input_dim}, the input width (got {self.rank})")


class CrossNetwork(nn.Module):
    """Layers x ← x0 ⊙ (W x + b) + x, with W = U Vᵀ when a rank is given."""

    def __init__(self, config: CrossNetworkConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_cross_matrix(config) for _ in range(config.num_layers))

    def forward(self, inputs: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """The input and its crosses, added up at the input's width."""
        crossed = inputs
        for layer in self.layers:
            crossed = inputs * layer(crossed) + crossed
        return crossed


def _cross_matrix(config: CrossNetworkConfig) -> nn.Module:
    if not config.rank:
        return nn.Linear(config.input_dim, config.input_dim)
    return nn.Sequential(nn.Linear(config.input_dim, config.rank, bias=False), nn.Linear(config.rank, config.input_dim))
