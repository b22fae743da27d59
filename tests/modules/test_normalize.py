"""Unit vectors, and finite gradients where there is no direction."""

from __future__ import annotations

import pytest
import torch

from trainers.modules.normalize import l2_normalize


@pytest.mark.parametrize(
    ("vector", "expected"), [([3.0, 4.0], [0.6, 0.8]), ([0.0, -2.0], [0.0, -1.0]), ([0.0, 0.0], [0.0, 0.0])]
)
def test_l2_normalize_matches_hand_worked_numbers(vector: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(l2_normalize(torch.tensor([vector])), torch.tensor([expected]))


def test_l2_normalize_has_a_finite_gradient_at_zero() -> None:
    vectors = torch.zeros(2, 3, requires_grad=True)
    l2_normalize(vectors).sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
