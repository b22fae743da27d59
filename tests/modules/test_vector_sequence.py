"""Vectors of earlier days as a sequence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.modules.contract import BATCH, ModuleContract
from trainers.modules.vector_sequence import VectorSequence, VectorSequenceConfig

CONFIG = VectorSequenceConfig(length=3, vector_dim=4, token_dim=8)


def vectors() -> Tensor:
    """Rows of which some days had no vector, and one never had any."""
    random = torch.Generator().manual_seed(0)
    present = torch.arange(3) < torch.tensor([3, 2, 1, 0, 3, 3])[:BATCH, None]
    values = torch.randn(BATCH, 3, 4, generator=random) * present[:, :, None]
    return torch.cat([values, present[:, :, None].float()], dim=2)


class TestVectorSequence(ModuleContract):
    def make(self) -> VectorSequence:
        return VectorSequence(CONFIG)

    def inputs(self) -> tuple[Any, ...]:
        return (vectors(),)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(1, 8)]


@torch.no_grad()
def test_a_missing_day_says_nothing_whatever_lies_there() -> None:
    module, given = VectorSequence(CONFIG).eval(), vectors()
    changed = given.clone()
    changed[1, 2, :-1] = 7.0
    torch.testing.assert_close(module(changed), module(given))


@torch.no_grad()
def test_the_order_of_days_matters() -> None:
    module, given = VectorSequence(CONFIG).eval(), vectors()
    assert not torch.allclose(module(given.flip(1))[0], module(given)[0])


@torch.no_grad()
def test_values_are_scaled_and_flags_are_not() -> None:
    torch.manual_seed(1)
    module = VectorSequence(replace(CONFIG, scale=2.0)).eval()
    plain = VectorSequence(CONFIG).eval()
    plain.load_state_dict(module.state_dict())
    given = vectors()
    doubled = torch.cat([2.0 * given[:, :, :-1], given[:, :, -1:]], dim=2)
    torch.testing.assert_close(module(given), plain(doubled))


def test_sizes_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"length must be at least 1 \(got 0\)"):
        replace(CONFIG, length=0)
