"""Vectors hidden from training rows: by entity, and all at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainers.hidden_vectors import hide_vectors

GROUPS = (("user_vector_0", "user_vector_1"), ("pin_vector_0",))
ROWS = 4000


def ones() -> dict[str, Tensor]:
    """Vectors that are all present, and an input that is none."""
    return {name: torch.ones(ROWS, 3) for name in ("user_vector_0", "user_vector_1", "pin_vector_0", "user_dense")}


def lost(inputs: dict[str, Tensor], name: str) -> Tensor:
    """Rows whose vector is gone, flag and all."""
    assert torch.equal(inputs[name].min(dim=1).values, inputs[name].max(dim=1).values)
    return inputs[name][:, 0] == 0.0


@pytest.mark.parametrize(("alone", "together"), [(0.25, 0.0), (0.0, 0.1), (0.25, 0.1)])
def test_vectors_of_an_entity_go_together_and_some_rows_lose_all(alone: float, together: float) -> None:
    torch.manual_seed(0)
    inputs = ones()
    hidden = hide_vectors(dict(inputs), GROUPS, alone=alone, together=together)
    user, pin = lost(hidden, "user_vector_0"), lost(hidden, "pin_vector_0")
    assert torch.equal(user, lost(hidden, "user_vector_1"))
    assert torch.equal(hidden["user_dense"], inputs["user_dense"])
    each = 1.0 - (1.0 - alone) * (1.0 - together)
    both = together + (1.0 - together) * alone**2
    assert user.float().mean().item() == pytest.approx(each, abs=0.025)
    assert pin.float().mean().item() == pytest.approx(each, abs=0.025)
    assert (user & pin).float().mean().item() == pytest.approx(both, abs=0.02)


def test_nothing_is_hidden_at_a_share_of_zero_or_without_vectors() -> None:
    inputs = ones()
    assert hide_vectors(inputs, GROUPS, alone=0.0, together=0.0) is inputs
    assert hide_vectors(inputs, (), alone=0.5, together=0.5) is inputs


def test_inputs_of_the_caller_stay_as_they_are() -> None:
    inputs = ones()
    hide_vectors(inputs, GROUPS, alone=1.0, together=0.0)
    assert inputs["user_vector_0"].all()
