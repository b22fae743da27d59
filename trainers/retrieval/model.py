"""Two towers over features and embeddings whose inner product finds candidates.

The inner product is a sum of blocks, each with a learned weight: the towers' own vectors; the vectors of each upstream
model, which would lose what they know about pairs if a tower had to relearn it; and a table of Pins, in which a user is
the Pins that the user engaged with last.
Source: the embeddings feed ad retrieval in DERM, arXiv:2509.04337; sampled softmax with logQ correction after Yi et
al., "Sampling-Bias-Corrected Neural Modeling", RecSys 2019; users as the sum of their Pins over the root of their
number after Koren, "Factorization Meets the Neighborhood", KDD 2008.
Dims: B batch, F tokens, D width of a token, T width of a tower's vector, E width of a query or candidate vector, L
longest sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainers.modules.normalize import l2_normalize
from trainers.modules.side import SequenceInputs, Side, SideConfig
from trainers.retrieval.pin_table import PinTable, RememberingPinTable


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedVectors:
    """A user and a Pin input whose vectors are of one space, so that their inner product means something."""

    user: str
    """Input of the user side [B, dim + 1]; the last column says whether it was present."""
    pin: str
    """The same of the Pin side."""
    dim: int
    weight: float = 1.0
    """Weight of their inner product before training; 1 fits vectors trained at the temperature used here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoTowerConfig:
    """Sizes of both towers."""

    user: SideConfig
    """Inputs of the query tower."""
    pin: SideConfig
    """Inputs of the candidate tower."""
    shared: tuple[SharedVectors, ...] = ()
    """Upstream vectors that enter the inner product as they are."""
    remembered: tuple[SequenceInputs, ...] = ()
    """Sequences of Pins, long histories among them, that the table of Pins remembers; none for a table that reads the
    sequences of the query tower."""
    remembered_dropout: float = 0.0
    """Share of those Pins that training hides."""
    sequence_buckets: int = 0
    """Rows of the tables of Pins; 0 without sequences."""
    pin_bucket: str = ""
    """Input with a candidate's own row of the table [B], hashed like the Pins in sequences."""
    hidden_dim: int = 128
    """Hidden width of each tower."""
    output_dim: int = 64
    """Width of a tower's vector, T, and of a row of the table of Pins."""
    tower_weight: float = 1.0
    """Weight of the towers' inner product before training."""

    @property
    def vector_dim(self) -> int:
        """Width of query and candidate vectors, E."""
        table = self.output_dim if self.sequence_buckets else 0
        return self.output_dim + sum(each.dim for each in self.shared) + table


class _Tower(nn.Module):
    """Tokens of a side to a vector: linear plus MLP."""

    def __init__(self, side: SideConfig, hidden_dim: int, output_dim: int) -> None:
        super().__init__()
        self.side = Side(side)
        width = side.num_tokens * side.fields.field_dim
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, output_dim)
        self.deep = nn.Sequential(nn.Linear(width, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, output_dim))

    def forward(self, inputs: Mapping[str, Tensor], pin_table: nn.Module | None = None) -> Float[Tensor, "B T"]:
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
        dim, buckets = config.user.fields.field_dim, config.sequence_buckets
        self.sequence_pins = nn.Embedding(buckets, dim) if buckets else None
        self.pin_table = _pin_table(config) if buckets else None
        self.tower_weight = nn.Parameter(torch.tensor(config.tower_weight))
        self.shared_weights = nn.Parameter(torch.tensor([each.weight for each in config.shared]))

    def weights(self) -> list[nn.Parameter]:
        """Weights of the blocks: few and worth a learning rate of their own."""
        table = self.pin_table.scalars() if self.pin_table is not None else []
        return [self.tower_weight, self.shared_weights, *table]

    def queries(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B E"]:
        """Query vectors of users, which carry the blocks' weights."""
        blocks = [self.tower_weight * self.query_tower(inputs, self.sequence_pins)]
        for i, each in enumerate(self.config.shared):
            blocks.append(self.shared_weights[i] * inputs[each.user][:, :-1])
        if self.pin_table is not None:
            blocks.append(self.pin_table.queries(inputs))
        return torch.cat(blocks, dim=1)

    def candidates(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B E"]:
        """Candidate vectors of Pins."""
        blocks = [self.candidate_tower(inputs)]
        blocks += [inputs[each.pin][:, :-1] for each in self.config.shared]
        if self.pin_table is not None:
            blocks.append(self.pin_table.rows(inputs[self.config.pin_bucket]))
        return torch.cat(blocks, dim=1)


def _pin_table(config: TwoTowerConfig) -> PinTable:
    buckets, dim, remembered = config.sequence_buckets, config.output_dim, config.remembered
    if remembered:
        return RememberingPinTable(buckets, dim, remembered, config.remembered_dropout)
    return PinTable(buckets, dim, config.user.sequences)


class QueryTower(nn.Module):
    """What a server runs: a user to a query, with a last element that weighs the candidates' popularity."""

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`query` [B, E + 1], whose last element is 1."""
        vectors = self.model.queries(inputs)
        return {"query": torch.cat([vectors, torch.ones_like(vectors[:, :1])], dim=1)}


class CandidateTower(nn.Module):
    """What makes the index of another day: a Pin to its candidate vector."""

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`candidate` [B, E]."""
        return {"candidate": self.model.candidates(inputs)}
