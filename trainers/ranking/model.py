"""A multi-task ranker on point-in-time features, with or without embeddings.

Embeddings join at the concatenation layer, each as a token, and each pair of one space also as a dot product.
Source: the downstream models of DERM, arXiv:2509.04337: DCN V2 crossing (arXiv:2008.13535), MMoE and a Transformer
over the user's sequence for CTR; DHEN (arXiv:2203.11014) for CVR.
Dims: B batch, F tokens, D width of a token, K width of the concatenation, H width of the experts' input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainers.modules.dcn import CrossNetwork, CrossNetworkConfig
from trainers.modules.dhen import DHEN, DHENConfig
from trainers.modules.embedding import FieldEmbedding, FieldEmbeddingConfig
from trainers.modules.heads import TaskHeads, TaskHeadsConfig
from trainers.modules.joined_vectors import JoinedVectors, JoinedVectorsConfig
from trainers.modules.mmoe import MMoE, MMoEConfig
from trainers.modules.side import Side, SideConfig
from trainers.modules.vector_sequence import VectorSequence, VectorSequenceConfig

DOT_SCALE = 4.0
"""Inner products of unit vectors are mostly below a half; this brings them to the size of other inputs."""

Each = Callable[[Tensor], Tensor]

MIXED_TOKENS = 8
"""Tokens that DHEN layers of a ranker work on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankerConfig:
    """Sizes of a ranker."""

    user: SideConfig
    """Inputs of the user."""
    pin: SideConfig
    """Inputs of the candidate."""
    context: FieldEmbeddingConfig
    """Surface and time."""
    tasks: tuple[str, ...]
    """Tasks; the first is the one that early stopping looks at."""
    vector_pairs: tuple[tuple[str, str], ...] = ()
    """User and Pin inputs that hold vectors of one space."""
    past_vectors: tuple[str, ...] = ()
    """Inputs with the user's vectors of earlier days, oldest first; `user` leaves them out."""
    past: VectorSequenceConfig | None = None
    """Sizes of their sequence, where there are any."""
    joined_vectors: tuple[str, ...] = ()
    """Inputs with embeddings that become tokens together; `user` and `pin` leave them out."""
    joined: JoinedVectorsConfig | None = None
    """Sizes of these, where there are any."""
    sequence_buckets: int = 0
    """Rows of the table for Pins in sequences; 0 without sequences."""
    backbone: str = "dcn"
    """`dcn` or `dhen`."""
    cross_layers: int = 2
    """Cross layers of `dcn`."""
    cross_rank: int = 32
    """Rank of their matrices."""
    hidden_dim: int = 128
    """Width H of the experts' input."""
    num_experts: int = 3
    """Experts of the MMoE."""
    dropout: float = 0.1
    """Dropout before the experts."""

    def __post_init__(self) -> None:
        if self.backbone not in ("dcn", "dhen"):
            raise ValueError(f"backbone must be 'dcn' or 'dhen' (got {self.backbone!r})")
        if len(self.past_vectors) != (0 if self.past is None else self.past.length):
            sized = "none" if self.past is None else self.past.length
            raise ValueError(f"past must size the past_vectors (got {sized} for {len(self.past_vectors)} inputs)")
        if len(self.joined_vectors) != (0 if self.joined is None else len(self.joined.dims)):
            widths = "none" if self.joined is None else self.joined.dims
            raise ValueError(
                f"joined must size the joined_vectors (got {widths} for {len(self.joined_vectors)} inputs)"
            )

    @property
    def layout(self) -> tuple[tuple[int, bool], ...]:
        """Tokens of each part in the order of their concatenation, and whether a request alone decides them."""
        found = [(self.user.num_tokens, True), (self.pin.num_tokens, False), (self.context.num_fields, True)]
        if self.past is not None:
            found.append((1, True))
        if self.joined is not None:
            found.append((self.joined.num_tokens, False))
        return tuple(found)

    @property
    def num_tokens(self) -> int:
        """Tokens of all parts, F."""
        return sum(count for count, _ in self.layout)


class CrossBackbone(nn.Module):
    """DCN V2 beside an MLP, both over the concatenation."""

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        width = config.num_tokens * config.user.fields.field_dim + 2 * len(config.vector_pairs)
        rank = min(config.cross_rank, width)
        self.norm = nn.LayerNorm(width)
        self.cross = CrossNetwork(CrossNetworkConfig(input_dim=width, num_layers=config.cross_layers, rank=rank))
        self.deep = nn.Sequential(nn.Linear(width, 2 * config.hidden_dim), nn.ReLU())
        self.output = nn.Linear(width + 2 * config.hidden_dim, config.hidden_dim)

    def forward(self, tokens: Float[Tensor, "B F D"], dots: Float[Tensor, "B P"]) -> Float[Tensor, "B H"]:
        """Crossed features."""
        flat = self.norm(torch.cat([tokens.flatten(1), dots], dim=1))
        return torch.relu(self.output(torch.cat([self.cross(flat), self.deep(flat)], dim=1)))


class DhenBackbone(nn.Module):
    """DHEN layers over a few tokens that a linear layer mixes from all; dot products join behind them."""

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        dim = config.user.fields.field_dim
        self.mix = nn.Linear(config.num_tokens * dim, MIXED_TOKENS * dim)
        self.dhen = DHEN(
            DHENConfig(num_fields=MIXED_TOKENS, field_dim=dim, output_fields=MIXED_TOKENS, num_heads=max(1, dim // 8))
        )
        self.output = nn.Linear(MIXED_TOKENS * dim + 2 * len(config.vector_pairs), config.hidden_dim)

    def forward(self, tokens: Float[Tensor, "B F D"], dots: Float[Tensor, "B P"]) -> Float[Tensor, "B H"]:
        """Crossed features."""
        mixed = self.dhen(self.mix(tokens.flatten(1)).reshape(tokens.shape[0], MIXED_TOKENS, -1))
        return torch.relu(self.output(torch.cat([mixed.flatten(1), dots], dim=1)))


def _as_they_are(values: Tensor) -> Tensor:
    return values


class Ranker(nn.Module):
    """Features and embeddings of a user, a candidate and the context to one logit per task."""

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        self.config = config
        self.user = Side(config.user)
        self.pin = Side(config.pin)
        self.context = FieldEmbedding(config.context)
        self.past = VectorSequence(config.past) if config.past is not None else None
        self.joined = JoinedVectors(config.joined) if config.joined is not None else None
        dim = config.user.fields.field_dim
        self.sequence_pins = nn.Embedding(config.sequence_buckets, dim) if config.sequence_buckets else None
        self.backbone = CrossBackbone(config) if config.backbone == "dcn" else DhenBackbone(config)
        self.dropout = nn.Dropout(config.dropout)
        self.mmoe = MMoE(MMoEConfig(input_dim=config.hidden_dim, tasks=config.tasks, num_experts=config.num_experts))
        self.heads = TaskHeads(TaskHeadsConfig(input_dim=self.mmoe.config.output_dim, tasks=config.tasks))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logit [B] of each task."""
        tokens = torch.cat(self.parts(inputs), dim=1)
        features = self.dropout(self.backbone(tokens, self.dots(inputs, tokens)))
        logits: dict[str, Tensor] = self.heads(self.mmoe(features))
        return logits

    def parts(self, inputs: Mapping[str, Tensor], each: Each = _as_they_are) -> list[Tensor]:
        """Tokens of each part, in the order of `RankerConfig.layout`.

        Args:
            each: Brings what has a row per request to a row per candidate, where those are told apart.
        """
        config = self.config
        found = [self.user(inputs, self.sequence_pins), self.pin(inputs), self.context(inputs)]
        if self.past is not None:
            found.append(self.past(torch.stack([inputs[name] for name in config.past_vectors], dim=1)))
        if self.joined is not None:
            of_user = f"{config.user.fields.side}_"
            vectors = [each(inputs[n]) if n.startswith(of_user) else inputs[n] for n in config.joined_vectors]
            found.append(self.joined(vectors))
        return found

    def dots(self, inputs: Mapping[str, Tensor], tokens: Tensor, each: Each = _as_they_are) -> Float[Tensor, "B P"]:
        """Scaled inner product of each pair and whether both vectors were present.

        Args:
            tokens: Of any width; their rows are those of an answer without pairs.
            each: As that of `parts`.
        """
        parts = [tokens.flatten(1)[:, :0]]
        for user_name, pin_name in self.config.vector_pairs:
            user, pin = each(inputs[user_name]), inputs[pin_name]
            product = (user[:, :-1] * pin[:, :-1]).sum(dim=1, keepdim=True)
            parts += [DOT_SCALE * product, user[:, -1:] * pin[:, -1:]]
        return torch.cat(parts, dim=1)
