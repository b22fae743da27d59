"""Attention and sequence encoding: hand-worked weights, masks of every kind, and the module contract."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.modules.contract import BATCH, ModuleContract, fields
from trainers.modules.transformer import (
    MultiHeadAttention,
    SequenceEncoder,
    SequenceEncoderConfig,
    TransformerConfig,
    TransformerLayer,
)

LENGTH, DIM = 5, 8
LAYER = TransformerConfig(model_dim=DIM, num_heads=2, hidden_dim=16, dropout=0.1)


def present_of(lengths: list[int]) -> Tensor:
    """Mask of sequences of these lengths, padded at the end."""
    return torch.arange(LENGTH) < torch.tensor(lengths)[:, None]


class TestTransformerLayer(ModuleContract):
    def make(self) -> nn.Module:
        return TransformerLayer(LAYER)

    def inputs(self) -> tuple[Tensor, ...]:
        return fields(LENGTH, DIM), present_of([5, 3, 0, 1, 2, 4])

    def shapes(self) -> list[tuple[int, ...]]:
        return [(LENGTH, DIM)]


class TestSequenceEncoder(ModuleContract):
    pooling: Literal["queries", "target"] = "queries"

    def make(self) -> nn.Module:
        return SequenceEncoder(SequenceEncoderConfig(layer=LAYER, num_layers=2, num_outputs=3, pooling=self.pooling))

    def inputs(self) -> tuple[Tensor, ...]:
        return fields(LENGTH, DIM), present_of([5, 3, 0, 1, 2, 4])

    def shapes(self) -> list[tuple[int, ...]]:
        return [(3, DIM)]


class TestTargetSequenceEncoder(TestSequenceEncoder):
    pooling = "target"

    def inputs(self) -> tuple[Tensor, ...]:
        return (*super().inputs(), torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(9)))


def plain_attention() -> MultiHeadAttention:
    """One head without learned projections."""
    attention = MultiHeadAttention(model_dim=2, num_heads=1)
    with torch.no_grad():
        attention.query.weight.copy_(torch.eye(2))
        attention.key_value.weight.copy_(torch.cat([torch.eye(2), torch.eye(2)]))
        attention.output.weight.copy_(torch.eye(2))
        for linear in (attention.query, attention.key_value, attention.output):
            linear.bias.zero_()
    return attention


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        # Query (√2 log 3, 0): scaled logits log 3, 0 and 0, so weights 3/5, 1/5 and 1/5.
        ([True, True, True], [3 / 5, 1 / 5 * 4 + 1 / 5 * 6]),
        ([True, True, False], [3 / 4, 1 / 4 * 4]),
        ([False, True, True], [0.0, 5.0]),
        ([False, False, True], [0.0, 6.0]),
        ([False, False, False], [0.0, 0.0]),
    ],
)
def test_attention_matches_hand_worked_numbers(present: list[bool], expected: list[float]) -> None:
    queries = torch.tensor([[[math.sqrt(2.0) * math.log(3.0), 0.0]]])
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 4.0], [0.0, 6.0]]])
    mixed = plain_attention()(queries, tokens, torch.tensor([present]))
    torch.testing.assert_close(mixed, torch.tensor([[expected]]))


def test_attention_without_a_mask_sees_all_tokens() -> None:
    attention, tokens = MultiHeadAttention(model_dim=DIM, num_heads=2), fields(LENGTH, DIM)
    everything = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    torch.testing.assert_close(attention(tokens, tokens), attention(tokens, tokens, everything))


@pytest.mark.parametrize("lengths", [[5, 3, 0, 1, 2, 4], [0] * BATCH, [5] * BATCH])
def test_pooling_with_shared_queries_is_attention_with_the_same_queries_in_every_row(lengths: list[int]) -> None:
    torch.manual_seed(0)
    attention, tokens, present = (
        MultiHeadAttention(model_dim=DIM, num_heads=2),
        fields(LENGTH, DIM),
        present_of(lengths),
    )
    with torch.no_grad():
        attention.key_value.bias.normal_()
    queries = torch.randn(3, DIM)
    expected = attention(queries.expand(BATCH, -1, -1), tokens, present)
    torch.testing.assert_close(attention.pool(queries, tokens, present), expected, atol=1e-6, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(mask=st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH), garbage=st.floats(-1e3, 1e3))
def test_sequence_encoder_answers_as_if_absent_tokens_were_cut_out(mask: list[bool], garbage: float) -> None:
    torch.manual_seed(0)
    encoder = SequenceEncoder(SequenceEncoderConfig(layer=LAYER, num_outputs=2)).eval()
    tokens, present = fields(LENGTH, DIM)[:1], torch.tensor([mask])
    soiled = torch.where(present[:, :, None], tokens, garbage)
    pooled = encoder(soiled, present)
    cut = tokens[:, present[0]]
    expected = encoder(cut, present[:, present[0]]) if any(mask) else encoder.empty[None]
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-4)


def test_sequence_encoder_has_finite_gradients_when_every_sequence_is_empty() -> None:
    encoder = SequenceEncoder(SequenceEncoderConfig(layer=LAYER, num_outputs=2))
    encoder(fields(LENGTH, DIM), present_of([0] * BATCH)).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in encoder.parameters())
    assert encoder.empty.grad is not None
    assert encoder.empty.grad.abs().sum() > 0


def test_target_changes_what_is_pooled() -> None:
    torch.manual_seed(0)
    encoder = SequenceEncoder(SequenceEncoderConfig(layer=LAYER, num_layers=0, pooling="target")).eval()
    tokens, present = fields(LENGTH, DIM), present_of([5] * BATCH)
    first, second = encoder(tokens, present, torch.ones(BATCH, DIM)), encoder(tokens, present, -torch.ones(BATCH, DIM))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(("pooling", "target"), [("queries", torch.ones(BATCH, DIM)), ("target", None)])
def test_sequence_encoder_refuses_a_target_that_does_not_fit_its_pooling(
    pooling: Literal["queries", "target"], target: Tensor | None
) -> None:
    encoder = SequenceEncoder(SequenceEncoderConfig(layer=LAYER, pooling=pooling))
    with pytest.raises(ValueError, match="a target must come exactly with pooling='target'"):
        encoder(fields(LENGTH, DIM), present_of([5] * BATCH), target)


def test_transformer_refuses_a_width_its_heads_do_not_divide() -> None:
    with pytest.raises(ValueError, match=r"model_dim must be a multiple of num_heads=4 \(got 6\)"):
        TransformerConfig(model_dim=6, num_heads=4)
