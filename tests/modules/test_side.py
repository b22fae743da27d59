"""One side of a model: fields and sequences together, and the module contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.modules.contract import BATCH, ModuleContract
from trainers.modules.embedding import FieldEmbeddingConfig
from trainers.modules.side import SequenceInputs, Side, SideConfig

CONFIG = SideConfig(
    fields=FieldEmbeddingConfig(
        side="user", field_dim=8, num_dense=2, multi_sizes=(0,), id_buckets=(5, 0, 0), id_dropout=0.5
    ),
    sequences=(
        SequenceInputs(
            pins="user_id_1",
            length=4,
            actions="user_list_0",
            num_actions=3,
            surfaces="user_multi_0",
            num_surfaces=3,
            ages="user_list_1",
        ),
        SequenceInputs(pins="user_id_2", length=6),
    ),
    sequence_tokens=2,
    normalise_dense=True,
)


class SideWithTable(nn.Module):
    """A side and the Pin table it borrows."""

    def __init__(self) -> None:
        super().__init__()
        self.side = Side(CONFIG)
        self.pins = nn.Embedding(9, 8)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens: Tensor = self.side(inputs, self.pins)
        return tokens


def user_inputs() -> dict[str, Tensor]:
    """Encoded user rows; the first has empty sequences, number lists are floats as `encode` writes them."""
    random = torch.Generator().manual_seed(0)
    present = torch.arange(6) < torch.arange(BATCH)[:, None]
    return {
        "user_dense": torch.cat([torch.randn(BATCH, 2, generator=random), torch.eye(BATCH)[:, :2]], dim=1),
        "user_multi_0": torch.randint(0, 3, (BATCH, 4), generator=random) * present[:, :4],
        "user_id_0": torch.randint(0, 5, (BATCH,), generator=random),
        "user_id_1": torch.randint(1, 9, (BATCH, 4), generator=random) * present[:, :4],
        "user_id_2": torch.randint(1, 9, (BATCH, 6), generator=random) * present,
        "user_list_0": (torch.randint(0, 8, (BATCH, 4), generator=random) * present[:, :4]).float(),
        "user_list_1": torch.randn(BATCH, 4, generator=random) * present[:, :4],
    }


class TestSide(ModuleContract):
    def make(self) -> nn.Module:
        return SideWithTable()

    def inputs(self) -> tuple[dict[str, Tensor], ...]:
        return (user_inputs(),)

    def shapes(self) -> list[tuple[int, ...]]:
        # One token each for the numbers and the id, two for each sequence.
        return [(6, 8)]


def test_missing_numbers_say_only_that_they_are_missing() -> None:
    torch.manual_seed(0)
    module, inputs = SideWithTable(), user_inputs()
    module.train()(inputs)
    before = module.eval()(inputs)
    soiled = {**inputs, "user_dense": inputs["user_dense"].clone()}
    # Row 0 lacks its first number.
    soiled["user_dense"][0, 0] = 1e6
    torch.testing.assert_close(module(soiled), before)


def test_side_with_sequences_asks_for_a_pin_table() -> None:
    with pytest.raises(ValueError, match="side user has sequences, so a pin_table must be given"):
        Side(CONFIG)(user_inputs())
