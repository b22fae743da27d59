"""The MLP over tokens: a hand-worked row and the module contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.modules.contract import ModuleContract, fields
from trainers.modules.mlp import MLP, MLPConfig


class TestMLP(ModuleContract):
    def make(self) -> nn.Module:
        return MLP(MLPConfig(num_fields=3, field_dim=4, output_fields=2, hidden_dims=(16, 8), dropout=0.2))

    def inputs(self) -> tuple[Tensor, ...]:
        return (fields(3, 4),)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(2, 4)]


def test_mlp_matches_hand_worked_numbers() -> None:
    mlp = MLP(MLPConfig(num_fields=2, field_dim=1, output_fields=2, hidden_dims=(2,)))
    with torch.no_grad():
        mlp.hidden[0].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        mlp.hidden[0].bias.zero_()
        mlp.output.weight.copy_(torch.tensor([[1.0, 0.0], [2.0, 5.0]]))
        mlp.output.bias.copy_(torch.tensor([0.0, 1.0]))
    # Hidden: 1 + 2 = 3 and relu(1 - 2) = 0. Output fields: 3 and 2 * 3 + 1 = 7.
    assert torch.equal(mlp(torch.tensor([[[1.0], [2.0]]])), torch.tensor([[[3.0], [7.0]]]))


def test_mlp_without_hidden_layers_is_linear() -> None:
    mlp = MLP(MLPConfig(num_fields=2, field_dim=2, output_fields=1, hidden_dims=()))
    tokens = torch.randn(1, 2, 2)
    torch.testing.assert_close(mlp(2 * tokens) - mlp(tokens), mlp(tokens) - mlp(0 * tokens))


@pytest.mark.parametrize(("hidden_dims", "dropout"), [((0,), 0.0), ((4,), 1.0), ((4,), -0.1)])
def test_mlp_refuses_impossible_layers(hidden_dims: tuple[int, ...], dropout: float) -> None:
    with pytest.raises(ValueError, match=r"must (all )?be"):
        MLPConfig(num_fields=1, field_dim=1, output_fields=1, hidden_dims=hidden_dims, dropout=dropout)
