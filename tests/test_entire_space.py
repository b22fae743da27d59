"""Clicks with conversions on every impression: numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trainers.entire_space import click_and_conversion, entire_space_bce

NAN = float("nan")
LOG3 = math.log(3.0)


def test_label_is_known_without_a_click_and_open_with_an_open_conversion() -> None:
    clicks = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, NAN])
    conversions = torch.tensor([NAN, 1.0, 1.0, 0.0, NAN, 1.0])
    expected = torch.tensor([0.0, 0.0, 1.0, 0.0, NAN, NAN])
    torch.testing.assert_close(click_and_conversion(clicks, conversions), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # Chances 1/2 and 3/4 of a click and a conversion after it: 3/8 of both.
        ([1.0], -math.log(3 / 8)),
        ([0.0], -math.log(5 / 8)),
        ([1.0, 0.0, NAN], -(math.log(3 / 8) + math.log(5 / 8)) / 2),
        ([NAN], 0.0),
    ],
)
def test_loss_is_the_cross_entropy_of_the_product(labels: list[float], expected: float) -> None:
    clicks, conversions = torch.zeros(len(labels)), torch.full((len(labels),), LOG3)
    assert entire_space_bce(clicks, conversions, torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("label", [0.0, 1.0, NAN])
@pytest.mark.parametrize("logit", [-200.0, 0.0, 200.0])
def test_loss_and_gradients_are_finite_for_any_logit(logit: float, label: float) -> None:
    clicks, conversions = (torch.tensor([logit], requires_grad=True) for _ in range(2))
    loss = entire_space_bce(clicks, conversions, torch.tensor([label]))
    loss.backward()
    for each in (loss, clicks.grad, conversions.grad):
        assert each is not None
        assert torch.isfinite(each).all()
