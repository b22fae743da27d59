"""Embeddings of all spaces and entities joined, and brought to a few tokens together or left as they are.

Source: DERM, arXiv:2509.04337, whose consumers project the joined embeddings to a width of 512.
Dims: B batch, E + 1 width of an input, P width of the projection, D width of a token, F = P / D tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinedVectorsConfig:
    """Sizes of joined embeddings."""

    dims: tuple[int, ...]
    """Width of each embedding, E; its input is one wider, the last element says whether there was one."""
    token_dim: int
    """Width of a token, D."""
    projection_dim: int = 0
    """Width of the projection, P, a multiple of D; 0 to hand on all elements as they are."""
    scales: tuple[float, ...] = ()
    """Factor on each embedding's values, which brings them to the size of other inputs; empty for 1 throughout."""

    def __post_init__(self) -> None:
        if not self.dims or self.token_dim < 1 or self.projection_dim < 0:
            got = f"{self.dims}, {self.token_dim}, {self.projection_dim}"
            raise ValueError(f"dims must not be empty, token_dim at least 1, projection_dim at least 0 (got {got})")
        if self.projection_dim % self.token_dim:
            raise ValueError(
                f"projection_dim must be a multiple of token_dim={self.token_dim} (got {self.projection_dim})"
            )
        if self.scales and len(self.scales) != len(self.dims):
            raise ValueError(f"scales must be one for each embedding or none (got {len(self.scales)})")

    @property
    def joined_dim(self) -> int:
        """Width of all inputs together."""
        return sum(self.dims) + len(self.dims)

    @property
    def num_tokens(self) -> int:
        """Tokens that come out, F."""
        return -(-(self.projection_dim or self.joined_dim) // self.token_dim)


class JoinedVectors(nn.Module):
    """One linear layer over all embeddings, or none at all."""

    def __init__(self, config: JoinedVectorsConfig) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(config.joined_dim, config.projection_dim) if config.projection_dim else None

    def forward(self, vectors: Sequence[Float[Tensor, "B _"]]) -> Float[Tensor, "B F D"]:
        """Tokens; where nothing is projected the last one is filled up with zeros."""
        scales = self.config.scales or (1.0,) * len(vectors)
        joined = torch.cat(
            [
                part
                for scale, each in zip(scales, vectors, strict=True)
                for part in (scale * each[:, :-1], each[:, -1:])
            ],
            dim=1,
        )
        if self.project is not None:
            joined = self.project(joined)
        width = self.config.num_tokens * self.config.token_dim
        filled = torch.nn.functional.pad(joined, (0, width - joined.shape[1]))
        return filled.reshape(-1, self.config.num_tokens, self.config.token_dim)
