"""DHEN: which modules, how they are combined, and the module contract."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from tests.modules.contract import ModuleContract, fields
from trainers.modules.dhen import DHEN, DHENConfig, DHENLayer, FieldProjection


class TestSummedDHEN(ModuleContract):
    ensemble: Literal["sum", "concat"] = "sum"
    layers: tuple[tuple[str, ...], ...] = (("masknet", "mlp"), ("transformer", "mlp"))

    def make(self) -> nn.Module:
        return DHEN(
            DHENConfig(
                num_fields=5, field_dim=8, output_fields=3, layers=self.layers, ensemble=self.ensemble, num_heads=2
            )
        )

    def inputs(self) -> tuple[Tensor, ...]:
        return (fields(5, 8),)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(3, 8)]


class TestConcatenatedDHEN(TestSummedDHEN):
    ensemble = "concat"
    layers = (("transformer", "dcn"), ("masknet", "mlp", "transformer"))


def test_field_projection_mixes_fields_and_leaves_elements_apart() -> None:
    projection = FieldProjection(2, 1)
    with torch.no_grad():
        projection.weights.weight.copy_(torch.tensor([[1.0, 10.0]]))
    assert torch.equal(projection(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])), torch.tensor([[[31.0, 42.0]]]))


@pytest.mark.parametrize(
    ("ensemble", "expected"),
    [
        # Each module doubles the fields: 2x + 2x + shortcut x = 5x.
        ("sum", 5.0),
        # Concatenated and projected with weights 1 and 10: 2x + 20x + x = 23x.
        ("concat", 23.0),
    ],
)
def test_dhen_layer_adds_the_ensemble_to_its_shortcut(ensemble: Literal["sum", "concat"], expected: float) -> None:
    config = DHENConfig(num_fields=1, field_dim=2, output_fields=1, layers=(("mlp", "mlp"),), ensemble=ensemble)
    layer = DHENLayer(config, ("mlp", "mlp"), 1)
    layer.interactions = nn.ModuleList(_Double() for _ in range(2))
    layer.norm = nn.Identity()
    if layer.ensemble is not None:
        layer.ensemble.weights.weight.data = torch.tensor([[1.0, 10.0]])
    assert torch.equal(layer(torch.tensor([[[1.0, -2.0]]])), expected * torch.tensor([[[1.0, -2.0]]]))


class _Double(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return 2.0 * tokens


def test_dhen_output_is_normalised_per_field() -> None:
    output = DHEN(DHENConfig(num_fields=4, field_dim=8, output_fields=2))(100.0 * fields(4, 8))
    torch.testing.assert_close(output.mean(dim=-1), torch.zeros(6, 2), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(output.var(dim=-1, unbiased=False), torch.ones(6, 2), atol=1e-3, rtol=0.0)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "at least one layer"),
        (((),), "at least one module"),
        ((("mlp", "gru"),), r"layers must name modules of .* \(got \['gru'\]\)"),
    ],
)
def test_dhen_refuses_impossible_layers(layers: tuple[tuple[str, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DHENConfig(num_fields=1, field_dim=4, output_fields=1, layers=layers)
