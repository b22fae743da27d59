"""Sizes of the two-tower retrieval model and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineRecipe:
    """Collaborative filtering to compare with; of each list, the best on the validation days is taken."""

    ease_l2: tuple[float, ...] = (100.0, 300.0, 1000.0)
    """Weight decays of EASE."""
    als_alpha: tuple[float, ...] = (1.0, 5.0, 20.0)
    """Confidences of ALS in an engagement."""
    als_factors: int = 64
    """Factors of ALS."""
    als_l2: float = 1.0
    """Weight decay of ALS."""
    als_iterations: int = 15
    """Rounds of ALS."""
    knn_similarities: tuple[str, ...] = ("cosine", "bm25")
    """Similarities of item-kNN."""
    knn_neighbours: int = 100
    """Similar Pins that item-kNN keeps of each."""
    prior_weights: tuple[float, ...] = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Weights of the log popularity in the score; these scores are no logits, so the right size is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryRecipe:
    """What retrieval does with long histories."""

    length: int = 50
    """Newest Pins that are read of each; 0 to leave the histories out."""
    epochs: int = 5
    """Passes over all users' histories before training on engaged pairs; 0 for none."""
    hidden_share: float = 0.5
    """Share of all Pins that a batch hides, above 0 and below 1."""
    max_hidden: int = 8192
    """Pins that a batch hides at most: it bounds the time of a step."""
    lr: float = 1e-2
    """AdamW learning rate at the start; it falls to a tenth along a cosine."""
    weight_decay: float = 1e-2
    """AdamW weight decay of the table."""

    def __post_init__(self) -> None:
        if not 0.0 < self.hidden_share < 1.0:
            raise ValueError(f"hidden_share must be above 0 and below 1 (got {self.hidden_share})")
        if self.max_hidden < 2:
            raise ValueError(f"max_hidden must be at least 2 (got {self.max_hidden})")


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
    outage_dropout: float = 0.0
    """Share of training rows that lose all vectors at once."""
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
    remembered_dropout: float = 0.2
    """Share of the Pins in a user's sequences that the table of Pins does not see in training."""
    histories: HistoryRecipe = field(default_factory=HistoryRecipe)
    """Long histories, where the dataset has some."""
    baselines: BaselineRecipe | None = None
    """Collaborative filtering to compare with; none to leave it out."""


def default() -> RetrievalRecipe:
    """Fits two cores."""
    return RetrievalRecipe()


def compared(recipe: RetrievalRecipe) -> RetrievalRecipe:
    """The same model beside collaborative filtering, with as many priors to choose from."""
    return replace(recipe, baselines=BaselineRecipe(), prior_weights=(0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5))


def tiny(recipe: RetrievalRecipe) -> RetrievalRecipe:
    """The same model, small enough for tests."""
    small = BaselineRecipe(
        ease_l2=(10.0,), als_alpha=(5.0,), als_factors=8, als_iterations=3, knn_similarities=("cosine",)
    )
    return replace(
        recipe,
        baselines=small,
        histories=HistoryRecipe(length=5, epochs=1),
        token_dim=8,
        hidden_dim=32,
        output_dim=16,
        epochs=1,
        batch_size=256,
    )
