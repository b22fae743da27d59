"""The cross network against numbers worked by hand, and the module contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.modules.contract import BATCH, ModuleContract
from trainers.modules.dcn import CrossNetwork, CrossNetworkConfig


class TestFullCrossNetwork(ModuleContract):
    rank = 0

    def make(self) -> nn.Module:
        return CrossNetwork(CrossNetworkConfig(input_dim=5, num_layers=3, rank=self.rank))

    def inputs(self) -> tuple[Tensor, ...]:
        return (torch.randn(BATCH, 5, generator=torch.Generator().manual_seed(0)),)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(5,)]


class TestLowRankCrossNetwork(TestFullCrossNetwork):
    rank = 2


def test_full_cross_network_matches_hand_worked_numbers() -> None:
    network = CrossNetwork(CrossNetworkConfig(input_dim=2, num_layers=2))
    with torch.no_grad():
        for layer in network.layers:
            layer.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
            layer.bias.copy_(torch.tensor([0.0, 1.0]))
    # x1 = (1, 2) * (3, 3) + (1, 2) = (4, 8); x2 = (1, 2) * (12, 9) + (4, 8) = (16, 26).
    assert torch.equal(network(torch.tensor([[1.0, 2.0]])), torch.tensor([[16.0, 26.0]]))


def test_low_rank_cross_network_matches_hand_worked_numbers() -> None:
    network = CrossNetwork(CrossNetworkConfig(input_dim=2, num_layers=1, rank=1))
    with torch.no_grad():
        network.layers[0][0].weight.copy_(torch.tensor([[1.0, 1.0]]))
        network.layers[0][1].weight.copy_(torch.tensor([[1.0], [2.0]]))
        network.layers[0][1].bias.zero_()
    # V^T x = 3, U 3 = (3, 6), x1 = (1, 2) * (3, 6) + (1, 2) = (4, 14).
    assert torch.equal(network(torch.tensor([[1.0, 2.0]])), torch.tensor([[4.0, 14.0]]))


@pytest.mark.parametrize("rank", [-1, 6])
def test_cross_network_refuses_a_rank_outside_its_width(rank: int) -> None:
    with pytest.raises(ValueError, match=rf"rank must be in 0..5, the input width \(got {rank}\)"):
        CrossNetworkConfig(input_dim=5, rank=rank)


def test_cross_network_refuses_no_layers() -> None:
    with pytest.raises(ValueError, match=r"num_layers must be at least 1 \(got 0\)"):
        CrossNetworkConfig(input_dim=5, num_layers=0)
