"""Sizes of the two-tower retrieval model and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalRecipe:
    """A two-tower model on features and embeddings."""

    token_dim: int = 16
    """Width of one token."""
    hidden_dim: int = 128
    """Hidden width of each tower."""
    output_dim: int = 64
    """Width of the query and candidate vectors."""
    tower_weight: float = 0.1
    """Weight of the towers' own inner product before training."""
    temperature: float = 0.1
    """Temperature of the sampled softmax."""
    embedding_dropout: float = 0.05
    """Share of training rows whose user, or Pin, vectors are hidden."""
    prior_weights: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Weights of the log popularity in the score that are tried on the validation days."""
    batch_size: int = 1024
    """Positive pairs of one step; their Pins are each other's negatives."""
    lr: float = 4e-3
    """AdamW learning rate at the start; it falls to a tenth along a cosine."""
    weight_decay: float = 1e-2
    """AdamW weight decay."""
    weights_lr: float = 5e-3
    """The same of the weights of the inner product's blocks, without decay."""
    epochs: int = 5
    """Passes over the training positives at most; how many is chosen by validation recall, more of equals."""


def default() -> RetrievalRecipe:
    """Fits two cores."""
    return RetrievalRecipe()


def tiny(recipe: RetrievalRecipe) -> RetrievalRecipe:
    """The same model, small enough for tests."""
    return replace(recipe, token_dim=8, hidden_dim=32, output_dim=16, epochs=1, batch_size=256)
