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
    unit_variance: bool = True
    """Whether embeddings, whose length is 1, are brought to the size of other inputs before a layer reads them."""
    embedding_dropout: float = 0.05
    """Share of training rows whose user, or Pin, vectors are hidden, so that missing ones are nothing new."""
    outage_dropout: float = 0.0
    """Share of training rows that lose all vectors at once, as all rows do when a store lacks them."""
    entire_space: bool = False
    """Learn a task given a click on every impression, as ESMM does, and not on clicked ones alone."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class BoostedRecipe:
    """A LightGBM ranker; the same values are tried with and without embeddings."""

    num_leaves: tuple[int, ...] = (15, 31, 63)
    """Leaves of a tree that are tried; the one with the least validation log loss is kept."""
    lr: float = 0.05
    """Shrinkage of each tree."""
    max_rounds: int = 600
    """Trees at most."""
    patience: int = 40
    """Trees without a better validation log loss after which training stops."""
    max_bin: int = 127
    """Bins of a number."""
    min_rows_in_leaf: int = 100
    """Rows that a leaf holds at least."""
    feature_fraction: float = 0.4
    """Share of the columns that a tree may use."""
    row_fraction: float = 0.8
    """Share of the rows that a tree learns from."""
    l2: float = 10.0
    """Pull of a leaf's value towards 0."""
    max_categories: int = 300
    """Categories with more values are not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogisticRecipe:
    """A logistic regression on the columns of the LightGBM ranker."""

    inverse_l2: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    """Inverse strengths of the regularisation that are tried; the one with the least validation log loss is kept."""
    max_iterations: int = 200
    """Steps of L-BFGS at most."""
    tolerance: float = 1e-4
    """Largest slope at which it stops."""


def boosted() -> BoostedRecipe:
    """LightGBM beside the neural rankers."""
    return BoostedRecipe()


def tiny_boosted() -> BoostedRecipe:
    """The same, small enough for tests."""
    return BoostedRecipe(num_leaves=(4, 8), max_rounds=10, min_rows_in_leaf=5, max_bin=15, patience=3)


def ctr() -> RankingRecipe:
    """CTR ranker: DCN V2, MMoE and a sequence encoder; what it costs to lose all vectors was measured on it."""
    return RankingRecipe(outage_dropout=0.25)


def cvr() -> RankingRecipe:
    """CVR ranker: DHEN-based, as in the paper."""
    return RankingRecipe(backbone="dhen")


def tried(recipe: RankingRecipe) -> tuple[RankingRecipe, ...]:
    """Other settings of the same ranker: more and smaller steps, stronger regularisation, more width."""
    return (
        replace(recipe, batch_size=512, max_epochs=3),
        replace(recipe, batch_size=512, lr=2e-3, dropout=0.3, max_epochs=3),
        replace(recipe, batch_size=256, dropout=0.3, weight_decay=0.1, max_epochs=3),
        replace(recipe, batch_size=512, hidden_dim=256, dropout=0.3, weight_decay=0.1, max_epochs=3),
    )


def tiny(recipe: RankingRecipe) -> RankingRecipe:
    """The same ranker, small enough for tests."""
    return replace(recipe, token_dim=8, hidden_dim=32, max_epochs=1, batch_size=256, sequence_buckets=1 << 10)
