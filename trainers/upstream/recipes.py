"""Sizes of the upstream model and how it is trained, as named recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

LayerPair = tuple[str, ...]

DHEN_MODULES = ("dcn", "masknet", "mlp", "transformer")
"""Interaction modules that a layer may pair."""
LATER = MappingProxyType({"later": True})
"""Metadata of a field that came after runs were made: fingerprints leave it out at its default, and stay valid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamRecipe:
    """One upstream model: sizes, losses and schedule.

    Temperature, loss weight, id dropout and learning rates are choices of ours; the paper does not report them.
    """

    token_dim: int = 32
    """Width of one token, D."""
    output_tokens: int = 2
    """Tokens a tower ends in; the embedding is `output_tokens * token_dim` wide."""
    hidden_tokens: int = 8
    """Tokens between DHEN layers."""
    tower_layers: tuple[LayerPair, ...] = (("masknet", "mlp"), ("transformer", "mlp"))
    """DHEN layers of the user and Pin towers: modules paired in each."""
    interaction_layers: tuple[LayerPair, ...] = (("masknet", "mlp"), ("transformer", "mlp"))
    """DHEN layers of the interaction tower."""
    id_dropout: float = 0.5
    """Share of training rows whose own user key is hidden, so that content carries unseen users."""
    pin_id_dropout: float = 0.1
    """The same for Pin keys."""
    temperature: float = 0.1
    """Temperature τ of the contrastive loss."""
    contrastive_weight: float = 0.2
    """Weight of the contrastive loss beside the supervised one."""
    batch_size: int = 1024
    """Rows of one step."""
    pretrain_lr: float = 2e-3
    """AdamW learning rate on the long histories."""
    daily_lr: float = 1e-3
    """AdamW learning rate of the daily steps."""
    weight_decay: float = 1e-4
    """AdamW weight decay."""
    replay: float = 1.0
    """Rows of earlier days trained on again with each day, relative to the day's own."""
    checkpoint_seconds: float = 20.0
    """Least time between the checkpoints of a walk: at most what a kill costs, and a day."""
    average_weight: float = 0.8
    """Weight w on the past in the moving average of embeddings."""
    retention_days: int = 90
    """Entities active in this many days get an embedding."""
    ttl_hours: int = 72
    """TTL of the embedding views."""
    alignment: Literal["none", "procrustes", "svd_procrustes"] = "procrustes"
    """How the vectors of a refreshed day are brought into the version's reference frame."""
    dhen_hidden_dim: int = 64
    """Hidden width of the modules of DHEN layers."""
    experts: Literal["mmoe", "ple"] = "mmoe"
    """What mixes the interaction tower's tokens for each task: experts shared by all, or PLE, which adds own ones."""
    num_experts: int = 4
    """Experts of `mmoe`; of `ple`, shared ones and those of each task."""
    task_weighting: Literal["fixed", "uncertainty"] = "fixed"
    """Weights of the tasks' losses: `task_weights`, or learned log variances."""
    task_weights: tuple[tuple[str, float], ...] = ()
    """Fixed weight of a task's loss, by its name; 1 for the others."""
    learned_temperature: bool = False
    """Train the temperature from `temperature` on, between .02 and 1."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Numbers that the towers are trained in; weights, losses, scores and embeddings are float32 either way."""
    id_hashes: int = 1
    """Hash functions that read an entity's own key, a table each: two keys rarely share all their rows."""
    max_id_buckets: int = 1 << 20
    """Rows of an id table at most; `id_tables_mb` says what they take."""
    min_id_count: int = 0
    """Rows that a key must have been in before its row of the table is read; until then content alone stands for it."""
    uniform_negatives: int = 0
    """Pins of the day's rows drawn uniformly for every step, as negatives beside those of the batch."""
    delayed_feedback: Literal["wait", "fake_negatives"] = field(default="wait", metadata=LATER)
    """Labels that arrive late: learned when their attribution window has closed, or at once as negatives and again as
    positives at the conversion, with the importance weights of `trainers.fake_negatives`."""

    def __post_init__(self) -> None:
        self._check_losses()
        for layers in (self.tower_layers, self.interaction_layers):
            unknown = sorted({name for layer in layers for name in layer} - set(DHEN_MODULES))
            if unknown or not layers or not all(layers):
                raise ValueError(f"layers must each name modules of {', '.join(DHEN_MODULES)} (got {layers})")
        if self.dhen_hidden_dim < 1 or self.num_experts < 1:
            sizes = f"{self.dhen_hidden_dim}, {self.num_experts}"
            raise ValueError(f"dhen_hidden_dim and num_experts must be at least 1 (got {sizes})")
        if not 0.0 <= self.average_weight < 1.0:
            raise ValueError(f"average_weight must be in [0, 1) (got {self.average_weight})")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2 for in-batch negatives (got {self.batch_size})")

    def _check_losses(self) -> None:
        names = [name for name, _ in self.task_weights]
        if len(set(names)) < len(names) or any(weight <= 0.0 for _, weight in self.task_weights):
            raise ValueError(f"task_weights must be positive, one a task at most (got {self.task_weights})")
        if self.task_weights and self.task_weighting != "fixed":
            raise ValueError(
                f"task_weights must be empty with task_weighting {self.task_weighting!r} (got {self.task_weights})"
            )
        for name, least in (("uniform_negatives", 0), ("min_id_count", 0), ("id_hashes", 1), ("max_id_buckets", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least} (got {getattr(self, name)})")

    @property
    def id_tables_mb(self) -> float:
        """Most that the id tables of one model take in training, in MiB: weights and both of Adam's moments."""
        return 2 * self.id_hashes * self.max_id_buckets * self.token_dim * 3 * 4 / 2**20

    @property
    def embedding_dim(self) -> int:
        """Width of the user and Pin embeddings."""
        return self.output_tokens * self.token_dim


def recipe_from(raw: Mapping[str, Any]) -> UpstreamRecipe:
    """Recipe read back from its fields as JSON holds them."""
    layers = {
        name: tuple(tuple(pair) for pair in raw[name]) for name in ("tower_layers", "interaction_layers") if name in raw
    }
    weights = {"task_weights": tuple((name, weight) for name, weight in raw.get("task_weights", ()))}
    return UpstreamRecipe(**{**raw, **layers, **weights})


def default() -> UpstreamRecipe:
    """Fits two cores: 64-wide embeddings."""
    return UpstreamRecipe()


def tiny() -> UpstreamRecipe:
    """For tests: seconds on a few thousand rows."""
    return replace(
        default(),
        token_dim=8,
        hidden_tokens=4,
        tower_layers=(("masknet", "mlp"),),
        interaction_layers=(("transformer", "mlp"),),
        batch_size=256,
        checkpoint_seconds=0.0,
    )
