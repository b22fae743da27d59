"""An entity's vectors of earlier days as a sequence, pooled to one token.

Source: LoopFM, arXiv:2605.29280, which feeds a user's past embeddings to a consumer in the order of time.
Dims: B batch, L days, V width of a vector, X = V + 1 with the flag, D width of a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainers.modules.transformer import SequenceEncoder, SequenceEncoderConfig, TransformerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorSequenceConfig:
    """Sizes of a sequence of vectors."""

    length: int
    """Days, L."""
    vector_dim: int
    """Width of a vector, V; an input is V + 1 wide, its last element says whether there was one."""
    token_dim: int
    """Width of a token, D."""
    scale: float = 1.0
    """Factor on the vectors' values, which brings them to the size of other inputs."""

    def __post_init__(self) -> None:
        for name in ("length", "vector_dim", "token_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")


class VectorSequence(nn.Module):
    """One Transformer layer over the days that had a vector, then a learned query that pools them."""

    def __init__(self, config: VectorSequenceConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.token_dim
        self.project = nn.Linear(config.vector_dim, dim)
        self.position = nn.Parameter(0.05 * torch.randn(config.length, dim))
        layer = TransformerConfig(model_dim=dim, num_heads=max(1, dim // 16), hidden_dim=2 * dim)
        self.encoder = SequenceEncoder(SequenceEncoderConfig(layer=layer, num_layers=1))

    def forward(self, vectors: Float[Tensor, "B L X"]) -> Float[Tensor, "B 1 D"]:
        """The pooled token; rows without any vector get one of their own.

        Args:
            vectors: Oldest first; what is missing is zero, its flag included.
        """
        present = vectors[:, :, -1] > 0.0
        tokens = self.project(self.config.scale * vectors[:, :, :-1]) + self.position
        pooled: Tensor = self.encoder(tokens * present[:, :, None].to(tokens.dtype), present)
        return pooled
