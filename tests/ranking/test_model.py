"""The ranker: its inner products, and what a missing vector is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.modules.contract import BATCH, ModuleContract
from trainers.modules.embedding import FieldEmbeddingConfig
from trainers.modules.joined_vectors import JoinedVectorsConfig
from trainers.modules.side import SideConfig
from trainers.modules.vector_sequence import VectorSequenceConfig
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


class TestRankerOfPastAndJoinedVectors(TestDcnRanker):
    def make(self) -> Ranker:
        user = replace(CONFIG.user, fields=replace(CONFIG.user.fields, vector_dims=()))
        return Ranker(
            replace(
                CONFIG,
                user=user,
                past_vectors=("user_vector_1", "user_vector_0"),
                past=VectorSequenceConfig(length=2, vector_dim=2, token_dim=8),
                joined_vectors=("user_vector_0",),
                joined=JoinedVectorsConfig(dims=(2,), token_dim=8),
            )
        )

    def inputs(self) -> tuple[Any, ...]:
        given = inputs()
        # The first row never had a vector.
        given["user_vector_0"][0] = 0.0
        return (given | {"user_vector_1": given["user_vector_0"].clone()},)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"past_vectors": ("user_vector_0",)}, r"past must size the past_vectors \(got none for 1 inputs\)"),
        ({"joined": JoinedVectorsConfig(dims=(2, 3), token_dim=8)}, r"\(got \(2, 3\) for 0 inputs\)"),
    ],
)
def test_past_and_joined_vectors_come_with_their_sizes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


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
