"""Losses against numbers worked by hand, and what they do where nothing is defined."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainers.losses import (
    ContrastiveConfig,
    ContrastiveLoss,
    UncertaintyWeighting,
    UniformNegatives,
    candidate_rows,
    log_inclusion,
    masked_bce,
    multi_task_bce,
    sampled_softmax,
)

NAN = float("nan")
LOG2, LOG3, LOG4 = math.log(2.0), math.log(3.0), math.log(4.0)


@pytest.mark.parametrize(
    ("labels", "weights", "expected"),
    [
        # Logits 0 and log 3: losses log 2 and, for labels 1 and 0, log 4/3 and log 4.
        ([1.0, 0.0], None, (LOG2 + LOG4) / 2),
        ([0.0, 1.0], None, (LOG2 + LOG4 - LOG3) / 2),
        ([NAN, 0.0], None, LOG4),
        ([1.0, NAN], None, LOG2),
        ([NAN, NAN], None, 0.0),
        ([1.0, 0.0], [1.0, 3.0], (LOG2 + 3 * LOG4) / 4),
        ([NAN, 0.0], [5.0, 3.0], LOG4),
        ([1.0, 0.0], [0.0, 0.0], 0.0),
    ],
)
def test_masked_bce_matches_hand_worked_numbers(
    labels: list[float], weights: list[float] | None, expected: float
) -> None:
    given_weights = None if weights is None else torch.tensor(weights)
    loss = masked_bce(torch.tensor([0.0, LOG3]), torch.tensor(labels), given_weights)
    assert loss.item() == pytest.approx(expected)


@given(st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=1, max_size=8))
def test_masked_bce_gradient_is_finite_and_zero_exactly_where_undefined(labels: list[float]) -> None:
    logits = torch.linspace(-80.0, 80.0, len(labels) + 1)[1:].requires_grad_()
    masked_bce(logits, torch.tensor(labels)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[torch.tensor(labels).isnan()].any()


def test_multi_task_bce_weighs_tasks_and_reports_each() -> None:
    logits = {"click": torch.tensor([0.0, LOG3]), "like": torch.tensor([0.0, 0.0]), "buy": torch.tensor([1.0, 1.0])}
    labels = {
        "click": torch.tensor([1.0, 0.0]),
        "like": torch.tensor([1.0, NAN]),
        "buy": torch.tensor([NAN, NAN]),
        "share": torch.tensor([1.0, 1.0]),
    }
    total, parts = multi_task_bce(logits, labels, {"like": 10.0})
    assert total.item() == pytest.approx((LOG2 + LOG4) / 2 + 10 * LOG2)
    assert {task: part.item() for task, part in parts.items()} == pytest.approx(
        {"click": (LOG2 + LOG4) / 2, "like": LOG2, "buy": 0.0}
    )


def test_multi_task_bce_names_a_task_without_labels() -> None:
    with pytest.raises(
        ValueError, match=r"every task needs labels \(got none for \['like'\]; labels are \['click'\]\)"
    ):
        multi_task_bce({"like": torch.zeros(1)}, {"click": torch.zeros(1)})


def loss_of(
    *,
    pin_ids: list[int],
    positive: list[bool],
    q: list[float],
    user_ids: list[int] | None = None,
    **options: object,
) -> Tensor:
    """Loss for users that all point to (1, 0) and Pins (1, 0), (0, 1), (1, 0), … by parity of their id; τ = 1/2."""
    pins = torch.tensor([[1.0, 0.0] if pin % 2 else [0.0, 1.0] for pin in pin_ids])
    config = ContrastiveConfig(**{"temperature": 0.5, "dedupe": False, "mask_known_positives": False, **options})
    return ContrastiveLoss(config)(
        torch.tensor([[1.0, 0.0]] * len(pin_ids)),
        pins,
        torch.tensor(pin_ids),
        torch.tensor(positive),
        torch.tensor(q).log(),
        user_ids=None if user_ids is None else torch.tensor(user_ids),
    )


E2 = math.exp(2.0)


@pytest.mark.parametrize(
    ("pin_ids", "positive", "q", "expected"),
    [
        # Logits 2 - log 1/2 and 0 - log 1/4: the odds of the positive are 2 e² to 4.
        ([1, 2], [True, False], [0.5, 0.25], math.log(1 + 2 / E2)),
        # The other row as anchor: 4 to 2 e².
        ([1, 2], [False, True], [0.5, 0.25], math.log(1 + E2 / 2)),
        ([1, 2], [True, True], [0.5, 0.25], (math.log(1 + 2 / E2) + math.log(1 + E2 / 2)) / 2),
        # The same Pin again is an accidental hit, not a negative.
        ([1, 2, 1], [True, False, False], [0.5, 0.25, 0.5], math.log(1 + 2 / E2)),
        # Another Pin of the same vector is a negative.
        ([1, 2, 3], [True, False, False], [0.5, 0.25, 0.5], math.log(2 + 2 / E2)),
        ([1, 2], [False, False], [0.5, 0.25], 0.0),
        ([1, 1], [True, True], [0.5, 0.5], 0.0),
        ([1], [True], [0.5], 0.0),
    ],
)
def test_contrastive_loss_matches_hand_worked_numbers(
    pin_ids: list[int], positive: list[bool], q: list[float], expected: float
) -> None:
    assert loss_of(pin_ids=pin_ids, positive=positive, q=q).item() == pytest.approx(expected, abs=1e-6)


def test_contrastive_loss_dedupes_pins_and_corrects_by_inclusion() -> None:
    # Of four draws, Pin 1 (Q = 1/2) is in the batch with 15/16 and Pin 2 (Q = 1/4) with 175/256.
    loss = loss_of(pin_ids=[1, 2, 2, 2], positive=[True, False, False, False], q=[0.5, 0.25, 0.25, 0.25], dedupe=True)
    assert loss.item() == pytest.approx(math.log(1 + (256 / 175) / (16 / 15 * E2)), rel=1e-5)


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ([7, 7, 7], 0.0),
        # User 7 engaged with the Pins of rows 0 and 1: only row 2's is left to tell apart.
        ([7, 7, 8], math.log(1 + 1 / E2) + math.log(1 + 1) + math.log(1 + 1 + E2)),
        ([7, 8, 9], math.log(1 + 2 / E2) + 2 * math.log(1 + 1 + E2)),
    ],
)
@pytest.mark.parametrize("dedupe", [False, True])
def test_known_positives_of_the_user_are_no_negatives(users: list[int], expected: float, dedupe: bool) -> None:
    loss = loss_of(
        pin_ids=[1, 2, 4],
        positive=[True] * 3,
        q=[1 / 3] * 3,
        user_ids=users,
        mask_known_positives=True,
        dedupe=dedupe,
    )
    assert loss.item() == pytest.approx(expected / 3, abs=1e-6)


def test_symmetric_loss_averages_both_directions() -> None:
    users = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    pins = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    config = ContrastiveConfig(temperature=0.5, dedupe=False, symmetric=True)
    flat = torch.full((2,), math.log(0.5))
    loss = ContrastiveLoss(config)(
        users, pins, torch.tensor([1, 2]), torch.tensor([True, False]), flat, user_ids=torch.tensor([5, 6])
    )
    # Finding the Pin: 2 against 0. Finding the user: 2 against 2.
    assert loss.item() == pytest.approx((math.log(1 + 1 / E2) + LOG2) / 2)


def test_contrastive_loss_ignores_a_constant_in_log_q_without_dedupe() -> None:
    one = loss_of(pin_ids=[1, 2, 4], positive=[True, True, False], q=[0.5, 0.25, 0.125])
    other = loss_of(pin_ids=[1, 2, 4], positive=[True, True, False], q=[0.05, 0.025, 0.0125])
    assert one.item() == pytest.approx(other.item(), rel=1e-5)


UNIFORM = UniformNegatives(
    vectors=torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
    ids=torch.tensor([8, 7]),
    log_q=torch.tensor([0.25, 0.5]).log(),
    num_pins=4,
)
"""Another Pin than the batch's, and the batch's own."""


@pytest.mark.parametrize(
    ("dedupe", "chance_7", "chance_8"),
    [
        # Rows expected of a Pin in a batch of one and two of four drawn uniformly: Q + 2 / 4.
        (False, 1.0, 0.75),
        # Chance of a Pin to be in either: 1 - (1 - Q) * (3 / 4)^2.
        (True, 1.0 - 0.5 * 0.5625, 1.0 - 0.75 * 0.5625),
    ],
)
def test_uniform_negatives_are_corrected_for_both_ways_of_being_drawn(
    dedupe: bool, chance_7: float, chance_8: float
) -> None:
    loss_of = ContrastiveLoss(ContrastiveConfig(temperature=0.5, dedupe=dedupe))
    one = torch.tensor([[1.0, 0.0]])
    loss = loss_of(
        one,
        one,
        torch.tensor([7]),
        torch.tensor([True]),
        torch.tensor([0.5]).log(),
        user_ids=torch.tensor([1]),
        uniform=UNIFORM,
    )
    # Logits 2 and 0; the uniformly drawn 7 is the target again and no negative.
    assert loss.item() == pytest.approx(math.log(1.0 + math.exp(-2.0) * chance_7 / chance_8), rel=1e-5)


def test_uncertainty_weighting_trades_precision_against_its_price() -> None:
    weighting = UncertaintyWeighting(("click", "like"))
    torch.nn.init.constant_(weighting.log_variances["click"], LOG4)
    logits = {"click": torch.zeros(2), "like": torch.zeros(2)}
    total, parts = weighting(logits, {"click": torch.tensor([1.0, NAN]), "like": torch.tensor([0.0, 1.0])})
    # log 2 / 4 + log(4) / 2, and log 2 at a variance of 1.
    assert total.item() == pytest.approx(LOG2 / 4 + LOG2 + LOG2)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx({"click": LOG2, "like": LOG2})


def test_uncertainty_weighting_is_at_rest_where_the_variance_is_twice_the_loss_and_without_labels() -> None:
    weighting = UncertaintyWeighting(("click", "like"))
    torch.nn.init.constant_(weighting.log_variances["click"], math.log(2.0 * LOG2))
    logits = {"click": torch.zeros(1), "like": torch.zeros(1)}
    weighting(logits, {"click": torch.tensor([1.0]), "like": torch.tensor([NAN])})[0].backward()
    for task in ("click", "like"):
        gradient = weighting.log_variances[task].grad
        assert gradient is not None
        assert gradient.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("positive", [[False] * 4, [True, False, False, False], [True] * 4])
@pytest.mark.parametrize("options", [{}, {"dedupe": False}, {"symmetric": True}, {"learned_temperature": True}])
def test_contrastive_gradients_are_finite(positive: list[bool], options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    users, pins = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    loss_module = ContrastiveLoss(ContrastiveConfig(**options))
    ids = torch.tensor([1, 2, 1, 3])
    log_q = torch.tensor([0.5, 1e-30, 0.5, 1.0]).log()
    loss_module(users, pins, ids, torch.tensor(positive), log_q, user_ids=torch.tensor([1, 1, 2, 2])).backward()
    gradients = [users.grad, pins.grad, *(weight.grad for weight in loss_module.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_learned_temperature_starts_where_told_and_stays_between_its_bounds() -> None:
    loss = ContrastiveLoss(ContrastiveConfig(temperature=0.1, learned_temperature=True))
    assert loss.temperature().item() == pytest.approx(0.1)
    assert loss.raw_temperature is not None
    for raw, bound in ((-1e4, 0.02), (1e4, 1.0)):
        loss.raw_temperature.data.fill_(raw)
        assert loss.temperature().item() == pytest.approx(bound)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 1.0}, r"strictly between 0.02 and 1.0 \(got 1.0\)"),
        ({"min_temperature": 0.0}, "bounds must be positive and increase"),
        ({"min_temperature": 2.0}, "bounds must be positive and increase"),
    ],
)
def test_contrastive_config_refuses_impossible_temperatures(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastiveConfig(**options)


def test_contrastive_loss_asks_for_user_ids_that_it_needs() -> None:
    with pytest.raises(ValueError, match="user_ids must be given with mask_known_positives or symmetric"):
        loss_of(pin_ids=[1, 2], positive=[True, True], q=[0.5, 0.5], mask_known_positives=True)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_candidate_rows_keep_one_row_of_each_pin(ids: list[int]) -> None:
    rows, columns = candidate_rows(torch.tensor(ids), dedupe=True)
    assert sorted(ids[row] for row in rows.tolist()) == sorted(set(ids))
    assert [ids[row] for row in rows[columns].tolist()] == ids
    assert rows.tolist() == [ids.index(ids[row]) for row in rows.tolist()]


@pytest.mark.parametrize(
    ("q", "draws", "expected"), [(0.5, 1, 0.5), (0.5, 4, 15 / 16), (1e-9, 100, 1e-7), (1.0, 3, 1.0), (1e-20, 1, 1e-20)]
)
def test_log_inclusion_is_the_chance_of_being_drawn_at_least_once(q: float, draws: int, expected: float) -> None:
    assert log_inclusion(torch.tensor([q]).log(), draws).exp().item() == pytest.approx(expected, rel=1e-4)


def test_sampled_softmax_keeps_the_target_when_all_is_excluded() -> None:
    everything = torch.ones(1, 3, dtype=torch.bool)
    loss = sampled_softmax(torch.randn(1, 3), torch.zeros(3), torch.tensor([1]), everything)
    assert loss.item() == 0.0
