"""MaskBlock and MaskNet against numbers worked by hand, and the module contract."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from tests.modules.contract import ModuleContract, fields
from trainers.modules.masknet import HiddenMaskBlock, MaskBlock, MaskBlockConfig, MaskNet, MaskNetConfig


class TestMaskBlock(ModuleContract):
    def make(self) -> nn.Module:
        return MaskBlock(MaskBlockConfig(num_fields=3, field_dim=4, output_dim=8))

    def inputs(self) -> tuple[Tensor, ...]:
        return (fields(3, 4),)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(8,)]


class _MaskNetContract(ModuleContract):
    arrangement: Literal["parallel", "serial"]

    def make(self) -> nn.Module:
        return MaskNet(
            MaskNetConfig(
                num_fields=3, field_dim=4, output_fields=2, num_blocks=2, block_dim=16, arrangement=self.arrangement
            )
        )

    def inputs(self) -> tuple[Tensor, ...]:
        return (fields(3, 4),)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(2, 4)]


class TestParallelMaskNet(_MaskNetContract):
    arrangement = "parallel"


class TestSerialMaskNet(_MaskNetContract):
    arrangement = "serial"


def hand_made_block() -> MaskBlock:
    """Mask = relu(first element) · (1, 2, 3, 4); hidden = (sum, first element) of the masked, normalised fields."""
    block = MaskBlock(MaskBlockConfig(num_fields=2, field_dim=2, output_dim=2, reduction_ratio=1.0))
    with torch.no_grad():
        for parameter in (*block.mask.parameters(), block.output[0].weight):
            parameter.zero_()
        block.mask.aggregation.weight[0, 0] = 1.0
        block.mask.projection.weight[:, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        block.output[0].weight[0] = 1.0
        block.output[0].weight[1, 0] = 1.0
    return block


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # Norm per field: (-1, 1), (1, -1). Mask (1, 2, 3, 4): (-1, 2, 3, -4), hidden (0, -1), norm (1, -1), relu.
        ([[1.0, 3.0], [5.0, 1.0]], [1.0, 0.0]),
        # The norms are the same with signs turned in the first field: (1, -2, 3, -4), hidden (-2, 1), norm (-1, 1).
        ([[1.0, -3.0], [5.0, 1.0]], [0.0, 1.0]),
        # A negative first element closes the mask: hidden (0, 0).
        ([[-1.0, 3.0], [5.0, 1.0]], [0.0, 0.0]),
    ],
)
def test_mask_block_matches_hand_worked_numbers(rows: list[list[float]], expected: list[float]) -> None:
    output = hand_made_block()(torch.tensor([rows]))
    torch.testing.assert_close(output, torch.tensor([expected]), atol=1e-4, rtol=0.0)


def test_hidden_mask_block_gates_the_hidden_layer_by_the_fields() -> None:
    block = HiddenMaskBlock(input_dim=2, hidden_dim=2, reduction_ratio=1.0)
    with torch.no_grad():
        block.mask.aggregation.weight.zero_()
        block.mask.projection.weight.zero_()
        block.mask.projection.bias.copy_(torch.tensor([3.0, 1.0]))
        block.output[0].weight.copy_(torch.eye(2))
    # (1, 2) gated by (3, 1) is (3, 2): the norm puts the first element on top, which was the smaller one.
    output = block(torch.zeros(1, 1, 2), torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(output, torch.tensor([[1.0, 0.0]]), atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("ratio", [0.99, 0.0, -1.0])
def test_mask_block_refuses_a_reduction_ratio_below_one(ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"reduction_ratio must be at least 1.0 \(got {ratio}\)"):
        MaskBlockConfig(num_fields=1, field_dim=1, output_dim=1, reduction_ratio=ratio)


@pytest.mark.parametrize("name", ["num_fields", "field_dim", "output_fields", "num_blocks", "block_dim"])
def test_mask_net_refuses_a_size_of_zero(name: str) -> None:
    sizes = {"num_fields": 2, "field_dim": 2, "output_fields": 2, "num_blocks": 1, "block_dim": 4, name: 0}
    with pytest.raises(ValueError, match=r"must be at least 1 \(got 0\)"):
        MaskNetConfig(**sizes)
