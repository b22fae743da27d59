"""Embeddings that become tokens together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.modules.contract import BATCH, ModuleContract
from trainers.modules.joined_vectors import JoinedVectors, JoinedVectorsConfig

CONFIG = JoinedVectorsConfig(dims=(3, 2), token_dim=4, projection_dim=8)


def vectors() -> list[Tensor]:
    """Two embeddings a row."""
    random = torch.Generator().manual_seed(0)
    return [torch.cat([torch.randn(BATCH, dim, generator=random), torch.ones(BATCH, 1)], 1) for dim in CONFIG.dims]


class TestJoinedVectors(ModuleContract):
    def make(self) -> JoinedVectors:
        return JoinedVectors(CONFIG)

    def inputs(self) -> tuple[Any, ...]:
        return (vectors(),)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(2, 4)]


def test_without_a_projection_all_elements_are_handed_on() -> None:
    module = JoinedVectors(replace(CONFIG, projection_dim=0, scales=(2.0, 1.0)))
    first, second = torch.tensor([[1.0, 2.0, 3.0, 1.0]]), torch.tensor([[4.0, 5.0, 0.0]])
    expected = torch.tensor([[[2.0, 4.0, 6.0, 1.0], [4.0, 5.0, 0.0, 0.0]]])
    torch.testing.assert_close(module([first, second]), expected)
    assert not list(module.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projection_dim": 6}, r"multiple of token_dim=4 \(got 6\)"),
        ({"dims": ()}, r"dims must not be empty"),
        ({"scales": (1.0,)}, r"one for each embedding or none \(got 1\)"),
    ],
)
def test_sizes_of_joined_vectors_must_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)
