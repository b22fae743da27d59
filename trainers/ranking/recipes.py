"""Sizes of the rankers and how they are trained, as named recipes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingRecipe:
    """One ranker; the same values are used with and without embeddings."""

    backbone: Literal["dcn", "dhen"] = "dcn"
    """Crossing of the concatenated tokens: DCN V2 beside an MLP, or DHEN layers."""
    token_dim: int = 16
    """Width of one token."""
    cross_layers: int = 2
    """Layers of the cross network."""
    cross_rank: int = 32
    """Rank of its matrices."""
    hidden_dim: int = 128
    """Width of the MLP beside it, and of the experts' input."""
    num_experts: int = 3
    """Experts of the MMoE."""
    dropout: float = 0.1
    """Dropout before the experts."""
    embedding_dropout: float = 0.05
    """Share of training rows whose user, or Pin, vectors are hidden, so that missing ones are nothing new."""
    sequence_buckets: int = 1 << 14
    """Buckets of the hashed Pin ids in the user's sequence."""
    batch_size: int = 1024
    """Rows of one step."""
    lr: float = 1e-3
    """AdamW learning rate at the start; it falls to a tenth along a cosine."""
    weight_decay: float = 1e-2
    """AdamW weight decay."""
    max_epochs: int = 2
    """Passes over the training days; the best one by validation log loss is kept."""


def ctr() -> RankingRecipe:
    """CTR ranker: DCN V2, MMoE and a sequence encoder."""
    return RankingRecipe()


def cvr() -> RankingRecipe:
    """CVR ranker: DHEN-based, as in the paper."""
    return RankingRecipe(backbone="dhen")


def tiny(recipe: RankingRecipe) -> RankingRecipe:
    """The same ranker, small enough for tests."""
    return replace(recipe, token_dim=8, hidden_dim=32, max_epochs=1, batch_size=256, sequence_buckets=1 << 10)
