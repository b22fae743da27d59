"""DERM: a user tower, a Pin tower and an interaction tower that learn entity embeddings.

Context goes only into the interaction tower, so that embeddings stay clean of it. The interaction tower reads the
embeddings themselves: whatever it can predict from a user or a Pin, a consumer of the embeddings can too.
Source: "Decoupled Entity Representation Learning for Pinterest Ads Ranking", arXiv:2509.04337.
Dims: B batch, F tokens, D width of a token, T output tokens, E = T * D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainers.modules.dhen import DHEN, DHENConfig
from trainers.modules.embedding import FieldEmbedding, FieldEmbeddingConfig
from trainers.modules.heads import TaskHeads, TaskHeadsConfig
from trainers.modules.mmoe import MMoE, MMoEConfig
from trainers.modules.normalize import l2_normalize
from trainers.modules.ple import PLE, PLEConfig
from trainers.modules.side import Side, SideConfig

Layers = tuple[tuple[str, ...], ...]
EXPERT_DIM = 32
"""Width of what a task's head reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamConfig:
    """Sizes of the three towers."""

    user: SideConfig
    """Inputs of the user tower."""
    pin: SideConfig
    """Inputs of the Pin tower; its first id table also embeds the Pins of user sequences."""
    context: FieldEmbeddingConfig
    """Inputs that only the interaction tower sees."""
    tasks: tuple[str, ...]
    """Supervised tasks."""
    output_tokens: int = 2
    """Tokens that a tower ends in, T."""
    hidden_tokens: int = 8
    """Tokens of the interaction tower's output."""
    tower_layers: Layers = (("masknet", "mlp"), ("transformer", "mlp"))
    """DHEN layers of the user and Pin towers."""
    interaction_layers: Layers = (("masknet", "mlp"), ("transformer", "mlp"))
    """DHEN layers of the interaction tower."""
    dhen_hidden_dim: int = 64
    """Hidden width of the modules of DHEN layers."""
    experts: Literal["mmoe", "ple"] = "mmoe"
    """What mixes the interaction tower's tokens for each task."""
    num_experts: int = 4
    """Experts of `mmoe`; of `ple`, shared ones and those of each task."""

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings, E."""
        return self.output_tokens * self.user.fields.field_dim

    @property
    def cross_dim(self) -> int:
        """Width of the cross representations, H."""
        return len(self.tasks) * EXPERT_DIM


class UpstreamOutput(NamedTuple):
    """What one batch gives."""

    logits: dict[str, Tensor]
    """Logit [B] of each task."""
    user: Tensor
    """User embeddings [B, E] of unit length."""
    pin: Tensor
    """Pin embeddings [B, E] of unit length."""


class Tower(nn.Module):
    """One entity's inputs to its embedding.

    A linear layer first mixes the many input tokens into a few: DHEN layers over all of them would cost ten times as
    much, for attributes that mostly say little.
    """

    def __init__(self, side: SideConfig, config: UpstreamConfig) -> None:
        super().__init__()
        hidden_tokens, output_tokens = config.hidden_tokens, config.output_tokens
        dim = side.fields.field_dim
        self.hidden_tokens, self.token_dim = hidden_tokens, dim
        self.side = Side(side)
        self.mix = nn.Linear(side.num_tokens * dim, hidden_tokens * dim)
        self.dhen = DHEN(
            DHENConfig(
                num_fields=hidden_tokens,
                field_dim=dim,
                output_fields=hidden_tokens,
                layers=config.tower_layers,
                hidden_dim=config.dhen_hidden_dim,
                num_heads=max(1, dim // 16),
            )
        )
        self.output = nn.Linear(hidden_tokens * dim, output_tokens * dim)

    def forward(self, inputs: Mapping[str, Tensor], pin_table: nn.Module | None = None) -> Float[Tensor, "B E"]:
        """Embeddings of unit length."""
        mixed: Tensor = self.mix(self.side(inputs, pin_table).flatten(1))
        tokens = mixed.reshape(mixed.shape[0], self.hidden_tokens, self.token_dim)
        # As float32 also where the layers compute in bfloat16, whose three digits make no unit vector.
        return l2_normalize(self.output(self.dhen(tokens).flatten(1)).float())


class InteractionTower(nn.Module):
    """Task logits from both embeddings, their product and the context."""

    def __init__(self, config: UpstreamConfig) -> None:
        super().__init__()
        dim = config.user.fields.field_dim
        self.token_dim = dim
        self.scale = config.embedding_dim**0.5
        self.context = FieldEmbedding(config.context)
        self.dhen = DHEN(
            DHENConfig(
                num_fields=3 * config.output_tokens + config.context.num_fields,
                field_dim=dim,
                output_fields=config.hidden_tokens,
                layers=config.interaction_layers,
                hidden_dim=config.dhen_hidden_dim,
                num_heads=max(1, dim // 16),
            )
        )
        self.mmoe = _experts(config)
        self.heads = TaskHeads(TaskHeadsConfig(input_dim=self.mmoe.config.output_dim, tasks=config.tasks))

    def forward(
        self, user: Float[Tensor, "B E"], pin: Float[Tensor, "B E"], inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Logit [B] of each task; embeddings come as unit vectors."""
        logits: dict[str, Tensor] = self.heads(self.represent(user, pin, inputs))
        return logits

    def represent(
        self, user: Float[Tensor, "B E"], pin: Float[Tensor, "B E"], inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What the head of each task reads [B, H]; embeddings are brought to unit variance."""
        user, pin = user * self.scale, pin * self.scale
        flat = torch.cat([user, pin, user * pin], dim=1)
        fields = flat.reshape(user.shape[0], flat.shape[1] // self.token_dim, self.token_dim)
        tokens = self.dhen(torch.cat([fields, self.context(inputs)], dim=1))
        mixed: dict[str, Tensor] = self.mmoe(tokens.flatten(1))
        return mixed


def _experts(config: UpstreamConfig) -> MMoE | PLE:
    width = config.hidden_tokens * config.user.fields.field_dim
    if config.experts == "ple":
        return PLE(
            PLEConfig(input_dim=width, tasks=config.tasks, num_experts=config.num_experts, output_dim=EXPERT_DIM)
        )
    return MMoE(MMoEConfig(input_dim=width, tasks=config.tasks, num_experts=config.num_experts, output_dim=EXPERT_DIM))


class UpstreamModel(nn.Module):
    """The three towers."""

    def __init__(self, config: UpstreamConfig) -> None:
        super().__init__()
        self.config = config
        self.user_tower = Tower(config.user, config)
        self.pin_tower = Tower(config.pin, config)
        self.interaction = InteractionTower(config)

    def forward(self, inputs: Mapping[str, Tensor]) -> UpstreamOutput:
        """Embeddings of both entities and the logits of all tasks."""
        user, pin = self.embed_users(inputs), self.embed_pins(inputs)
        return UpstreamOutput(self.interaction(user, pin, inputs), user, pin)

    def cross(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B H"]:
        """Cross representations: what the interaction tower's heads read, all tasks side by side.

        Source: LFM4Ads, arXiv:2508.14948, which hands them to consumers beside the embeddings.
        """
        user, pin = self.embed_users(inputs), self.embed_pins(inputs)
        return torch.cat(list(self.interaction.represent(user, pin, inputs).values()), dim=1)

    def count_ids(self, inputs: Mapping[str, Tensor]) -> None:
        """Count the keys of rows that are about to be trained on, for tables with a threshold."""
        for tower in (self.user_tower, self.pin_tower):
            tower.side.fields.count_ids(inputs)

    def embed_users(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B E"]:
        """User embeddings."""
        embedded: Tensor = self.user_tower(inputs, self.pin_tower.side.fields.ids["0"])
        return embedded

    def embed_pins(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B E"]:
        """Pin embeddings."""
        embedded: Tensor = self.pin_tower(inputs)
        return embedded
