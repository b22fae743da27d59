"""The ranker: its inner products, and what a missing vector is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.modules.contract import BATCH, ModuleContract
from trainers.modules.embedding import FieldEmbeddingConfig
from trainers.modules.side import SideConfig
from trainers.ranking.model import DOT_SCALE, Ranker, RankerConfig

CONFIG = RankerConfig(
    user=SideConfig(fields=FieldEmbeddingConfig(side="user", field_dim=8, num_dense=2, vector_dims=(2,))),
    pin=SideConfig(fields=FieldEmbeddingConfig(side="pin", field_dim=8, num_dense=1, vector_dims=(3, 2))),
    context=FieldEmbeddingConfig(side="context", field_dim=8, categorical_sizes=(3,)),
    tasks=("click", "like"),
    vector_pairs=(("user_vector_0", "pin_vector_1"),),
    hidden_dim=16,
)


def inputs() -> dict[str, Tensor]:
    """Inputs of a few rows."""
    random = torch.Generator().manual_seed(0)

    def vectors(width: int) -> Tensor:
        return torch.cat([torch.randn(BATCH, width, generator=random), torch.ones(BATCH, 1)], dim=1)

    return {
        "user_dense": torch.randn(BATCH, 4, generator=random),
        "pin_dense": torch.randn(BATCH, 2, generator=random),
        "context_categorical": torch.randint(0, 3, (BATCH, 1), generator=random),
        "user_vector_0": vectors(2),
        "pin_vector_0": vectors(3),
        "pin_vector_1": vectors(2),
    }


class TestDcnRanker(ModuleContract):
    def make(self) -> Ranker:
        return Ranker(CONFIG)

    def inputs(self) -> tuple[Any, ...]:
        return (inputs(),)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(), ()]


class TestDhenRanker(TestDcnRanker):
    def make(self) -> Ranker:
        return Ranker(replace(CONFIG, backbone="dhen"))


def dots(user: list[float], pin: list[float]) -> list[float]:
    """What the ranker makes of one pair of vectors with their flags."""
    model, row = Ranker(CONFIG), torch.zeros(1, 1, 1)
    (found,) = model.dots({"user_vector_0": torch.tensor([user]), "pin_vector_1": torch.tensor([pin])}, row)
    return list(found.tolist())


@pytest.mark.parametrize(
    ("user", "pin", "expected"),
    [
        ([0.6, 0.8, 1.0], [1.0, 0.0, 1.0], [0.6 * DOT_SCALE, 1.0]),
        ([0.6, 0.8, 1.0], [0.8, -0.6, 1.0], [0.0, 1.0]),
        ([0.6, 0.8, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0]),
        ([0.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0]),
    ],
)
def test_ranker_takes_inner_products_and_whether_both_vectors_were_there(
    user: list[float], pin: list[float], expected: list[float]
) -> None:
    assert dots(user, pin) == pytest.approx(expected, abs=1e-6)


def test_ranker_without_pairs_has_no_inner_products() -> None:
    model = Ranker(replace(CONFIG, vector_pairs=()))
    assert model.dots({}, torch.zeros(4, 1, 1)).shape == (4, 0)
    assert model(inputs())["click"].shape == (BATCH,)


@pytest.mark.parametrize("backbone", ["dcn", "dhen"])
def test_ranker_reads_the_pair_beyond_its_tokens(backbone: str) -> None:
    torch.manual_seed(0)
    model = Ranker(replace(CONFIG, backbone=backbone)).eval()
    with torch.no_grad():
        for side, slot in ((model.user, 0), (model.pin, 1)):
            side.fields.vectors[slot].weight.zero_()
    before = model(inputs())["click"]
    after = model(inputs() | {"pin_vector_1": inputs()["pin_vector_1"].flip(0)})["click"]
    assert (before != after).any()


def test_ranker_config_refuses_an_unknown_backbone() -> None:
    with pytest.raises(ValueError, match=r"'dcn' or 'dhen' \(got 'mlp'\)"):
        replace(CONFIG, backbone="mlp")
