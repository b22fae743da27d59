"""The fake negative weighted loss, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trainers.fake_negatives import fake_negative_importance
from trainers.losses import UncertaintyWeighting, masked_bce, multi_task_bce

LOG3 = math.log(3.0)


def test_importance_matches_hand_worked_numbers() -> None:
    # Predictions 1/2, 3/4, 3/4 and 1/4: 1 + p of a positive, (1 - p)(1 + p) of negatives.
    logits = torch.tensor([0.0, LOG3, LOG3, -LOG3])
    found = fake_negative_importance(logits, torch.tensor([1.0, 1.0, 0.0, 0.0]))
    torch.testing.assert_close(found, torch.tensor([1.5, 1.75, 0.4375, 0.9375]))


def test_importance_has_no_gradient() -> None:
    logits = torch.tensor([0.3, -0.4], requires_grad=True)
    assert not fake_negative_importance(logits, torch.tensor([1.0, 0.0])).requires_grad


def test_loss_matches_hand_worked_numbers_and_leaves_out_undefined_rows() -> None:
    logits, labels = torch.tensor([0.0, LOG3, 5.0]), torch.tensor([1.0, 0.0, float("nan")])
    importance = fake_negative_importance(logits, labels)
    # (1.5 log 2 + 0.4375 log 4) / 2, over rows and not over weights.
    assert masked_bce(logits, labels, importance=importance).item() == pytest.approx(2.375 * math.log(2) / 2)


def gradient(rate_in_tenths: int, predicted: float, fake_negatives: tuple[str, ...]) -> float:
    """Slope of the loss at a prediction, on ten rows of which so many came again as positives."""
    labels = torch.tensor([0.0] * 10 + [1.0] * rate_in_tenths)
    logits = torch.full_like(labels, math.log(predicted / (1 - predicted)), requires_grad=True)
    total, _ = multi_task_bce({"buy": logits}, {"buy": labels}, fake_negatives=fake_negatives)
    total.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return float(logits.grad.sum())


@pytest.mark.parametrize("tenths", [1, 3, 8])
def test_loss_is_least_at_the_true_rate(tenths: int) -> None:
    rate = tenths / 10
    assert gradient(tenths, rate, ("buy",)) == pytest.approx(0.0, abs=1e-7)
    assert gradient(tenths, rate - 0.05, ("buy",)) < 0.0 < gradient(tenths, rate + 0.05, ("buy",))


@pytest.mark.parametrize("tenths", [1, 3, 8])
def test_plain_loss_is_least_below_the_true_rate(tenths: int) -> None:
    rate = tenths / 10
    assert gradient(tenths, rate / (1 + rate), ()) == pytest.approx(0.0, abs=1e-7)
    assert gradient(tenths, rate, ()) > 0.0


def test_other_tasks_keep_their_plain_loss() -> None:
    logits = {task: torch.tensor([0.5, -1.0]) for task in ("click", "buy")}
    labels = {task: torch.tensor([1.0, 0.0]) for task in logits}
    plain, late = (multi_task_bce(logits, labels, fake_negatives=late)[1] for late in ((), ("buy",)))
    assert late["click"] == plain["click"]
    assert late["buy"] != plain["buy"]
    _, uncertain = UncertaintyWeighting(("click", "buy"))(logits, labels, {"buy"})
    assert uncertain == late
