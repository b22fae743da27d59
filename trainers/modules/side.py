"""Everything one side of a model reads, as tokens: numbers, categories, ids, vectors and sequences.

Dims: B batch, F tokens, D width of a token, L longest sequence, N dense columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainers.modules.embedding import (
    FieldEmbedding,
    FieldEmbeddingConfig,
    SequenceEmbedding,
    SequenceEmbeddingConfig,
)
from trainers.modules.running_norm import RunningNorm
from trainers.modules.transformer import SequenceEncoder, SequenceEncoderConfig, TransformerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceInputs:
    """Which inputs of a side make one sequence of Pins."""

    pins: str
    """Input with the Pin buckets, such as `user_id_1`."""
    length: int
    """Longest sequence."""
    actions: str | None = None
    """Input with the label bitmasks."""
    num_actions: int = 0
    """Bits of the bitmask."""
    surfaces: str | None = None
    """Input with the surface indices."""
    num_surfaces: int = 0
    """Surface indices, 0 included."""
    ages: str | None = None
    """Input with the standardised ages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SideConfig:
    """Sizes of one side."""

    fields: FieldEmbeddingConfig
    """Everything but sequences."""
    sequences: tuple[SequenceInputs, ...] = ()
    """Sequences of Pins, each pooled to `sequence_tokens` tokens."""
    sequence_tokens: int = 1
    """Tokens of one pooled sequence."""
    sequence_layers: int = 0
    """Transformer layers over a sequence before learned queries pool it by attention."""
    normalise_dense: bool = False
    """Standardise numbers by running moments instead of moments fitted beforehand."""

    @property
    def num_tokens(self) -> int:
        """Tokens that come out, F."""
        return self.fields.num_fields + len(self.sequences) * self.sequence_tokens


class Side(nn.Module):
    """Tokens of one side; Pins in sequences are looked up in a table that the caller owns and may share."""

    def __init__(self, config: SideConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.fields.field_dim
        self.fields = FieldEmbedding(config.fields)
        num_dense = config.fields.num_dense
        running = config.normalise_dense and num_dense
        self.dense_norm = RunningNorm(num_dense) if running else None
        self.embeddings = nn.ModuleList(SequenceEmbedding(_embedding_config(each, dim)) for each in config.sequences)
        self.encoders = nn.ModuleList(SequenceEncoder(_encoder_config(config)) for _ in config.sequences)

    def forward(self, inputs: Mapping[str, Tensor], pin_table: nn.Module | None = None) -> Float[Tensor, "B F D"]:
        """Tokens of the fields, then of the sequences in order.

        Raises:
            ValueError: The side has sequences and no table came to look their Pins up in.
        """
        if self.config.sequences and pin_table is None:
            raise ValueError(f"side {self.config.fields.side} has sequences, so a pin_table must be given (got None)")
        tokens = [self.fields(self._normalised(inputs))]
        for sequence, embedding, encoder in zip(self.config.sequences, self.embeddings, self.encoders, strict=True):
            pins = inputs[sequence.pins]
            embedded, present = embedding(pin_table(pins), pins, *_details(sequence, inputs))  # type: ignore[misc]
            tokens.append(encoder(embedded, present))
        return torch.cat(tokens, dim=1)

    def _normalised(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.dense_norm is None:
            return inputs
        name = f"{self.config.fields.side}_dense"
        values, missing = inputs[name].chunk(2, dim=1)
        centred = self.dense_norm(values, missing)
        return {**inputs, name: torch.cat([centred, missing], dim=1)}


def _details(sequence: SequenceInputs, inputs: Mapping[str, Tensor]) -> tuple[Tensor | None, ...]:
    actions = inputs[sequence.actions].long() if sequence.actions else None
    surfaces = inputs[sequence.surfaces] if sequence.surfaces else None
    return actions, surfaces, inputs[sequence.ages] if sequence.ages else None


def _embedding_config(sequence: SequenceInputs, dim: int) -> SequenceEmbeddingConfig:
    return SequenceEmbeddingConfig(
        pin_dim=dim,
        model_dim=dim,
        max_length=sequence.length,
        num_actions=sequence.num_actions,
        num_surfaces=sequence.num_surfaces,
        use_ages=sequence.ages is not None,
    )


def _encoder_config(config: SideConfig) -> SequenceEncoderConfig:
    dim = config.fields.field_dim
    layer = TransformerConfig(model_dim=dim, num_heads=max(1, dim // 16), hidden_dim=2 * dim)
    return SequenceEncoderConfig(layer=layer, num_layers=config.sequence_layers, num_outputs=config.sequence_tokens)
