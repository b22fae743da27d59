"""Two towers over features and embeddings whose inner product finds candidates.

Source: the embeddings feed ad retrieval in DERM, arXiv:2509.04337; sampled softmax with logQ correction after Yi et
al., "Sampling-Bias-Corrected Neural Modeling", RecSys 2019.
Dims: B batch, F tokens, D width of a token, E width of a query or candidate vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainers.modules.normalize import l2_normalize
from trainers.modules.side import Side, SideConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoTowerConfig:
    """Sizes of both towers."""

    user: SideConfig
    """Inputs of the query tower."""
    pin: SideConfig
    """Inputs of the candidate tower."""
    sequence_buckets: int = 0
    """Rows of the table for Pins in sequences; 0 without sequences."""
    hidden_dim: int = 128
    """Hidden width of each tower."""
    output_dim: int = 64
    """Width of query and candidate vectors, E."""


class _Tower(nn.Module):
    """Tokens of a side to a vector: linear plus MLP, so that embeddings of upstream can pass straight through."""

    def __init__(self, side: SideConfig, hidden_dim: int, output_dim: int) -> None:
        super().__init__()
        self.side = Side(side)
        width = side.num_tokens * side.fields.field_dim
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, output_dim)
        self.deep = nn.Sequential(nn.Linear(width, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, output_dim))

    def forward(self, inputs: Mapping[str, Tensor], pin_table: nn.Module | None = None) -> Float[Tensor, "B E"]:
        """Vectors of unit length."""
        flat = self.norm(self.side(inputs, pin_table).flatten(1))
        return l2_normalize(self.linear(flat) + self.deep(flat))


class TwoTower(nn.Module):
    """Query tower and candidate tower."""

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.query_tower = _Tower(config.user, config.hidden_dim, config.output_dim)
        self.candidate_tower = _Tower(config.pin, config.hidden_dim, config.output_dim)
        dim = config.user.fields.field_dim
        self.sequence_pins = nn.Embedding(config.sequence_buckets, dim) if config.sequence_buckets else None

    def queries(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B E"]:
        """Query vectors of users."""
        vectors: Tensor = self.query_tower(inputs, self.sequence_pins)
        return vectors

    def candidates(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B E"]:
        """Candidate vectors of Pins."""
        vectors: Tensor = self.candidate_tower(inputs)
        return vectors


class QueryTower(nn.Module):
    """What a server runs: a user to a query, with a last element that weighs the candidates' popularity."""

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`query` [B, E + 1], whose last element is 1."""
        vectors = self.model.queries(inputs)
        return {"query": torch.cat([vectors, torch.ones_like(vectors[:, :1])], dim=1)}
