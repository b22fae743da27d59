"""Users as the Pins that they remember."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainers.modules.side import SequenceInputs
from trainers.retrieval.pin_table import PinTable, RememberingPinTable

LATELY = SequenceInputs(pins="lately", length=2, actions="actions", num_actions=2)
LONG_AGO = SequenceInputs(pins="long_ago", length=3)


def table(dropout: float = 0.0) -> RememberingPinTable:
    """Bucket b is remembered as b in both places, and everything counts alike."""
    made = RememberingPinTable(6, 2, (LATELY, LONG_AGO), dropout).eval()
    made.load_state_dict(
        made.state_dict() | {"remembered.weight": torch.arange(6.0)[:, None].expand(6, 2), "weight": torch.tensor(1.0)}
    )
    return made


def inputs(lately: list[int], actions: list[float], long_ago: list[int]) -> dict[str, Tensor]:
    """One user."""
    return {"lately": torch.tensor([lately]), "actions": torch.tensor([actions]), "long_ago": torch.tensor([long_ago])}


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (inputs([0, 0], [0.0, 0.0], [0, 0, 0]), 0.0),
        (inputs([3, 0], [0.0, 0.0], [0, 0, 0]), 3 / 1.5**0.5),
        (inputs([3, 1], [0.0, 0.0], [2, 0, 0]), 6 / 3.5**0.5),
        # Bits 0 and 1: the first Pin counts 2 * 3 times, the second once.
        (inputs([3, 1], [3.0, 0.0], [0, 0, 0]), (6 * 3 + 1) / 37.5**0.5),
    ],
)
def test_query_is_the_weighted_sum_over_the_length_of_the_weights(user: dict[str, Tensor], expected: float) -> None:
    made = table()
    made.load_state_dict(made.state_dict() | {"counted.0.actions": torch.tensor([2.0, 3.0]).log()})
    torch.testing.assert_close(made.queries(user), torch.full((1, 2), expected))


def test_places_are_counted_from_the_newest_whatever_the_length() -> None:
    made = table()
    made.load_state_dict(made.state_dict() | {"counted.1.places": torch.tensor([1.0, 2.0, 4.0]).log()})
    nothing: tuple[list[int], list[float]] = ([0, 0], [0.0, 0.0])
    short, full = (made.queries(inputs(*nothing, pins))[0, 0].item() for pins in ([3, 5, 0], [1, 3, 5]))
    assert short == pytest.approx((2 * 3 + 5) / 5.5**0.5)
    assert full == pytest.approx((4 * 1 + 2 * 3 + 5) / 21.5**0.5)


def test_training_hides_a_share_of_what_is_remembered() -> None:
    made, user = table(dropout=1.0), inputs([3, 1], [0.0, 0.0], [2, 0, 0])
    assert made.queries(user).abs().sum() > 0
    assert made.train().queries(user).abs().sum() == 0


def test_without_histories_a_user_is_the_sum_of_the_pins_over_the_root_of_their_number() -> None:
    made = PinTable(6, 2, (LATELY, LONG_AGO))
    rows = torch.arange(6.0)[:, None].expand(6, 2)
    made.load_state_dict({"rows.weight": rows, "weight": torch.tensor(0.5)})
    found = made.queries(inputs([3, 1], [3.0, 0.0], [2, 0, 0]))
    torch.testing.assert_close(found, torch.full((1, 2), 0.5 * 6 / 3**0.5))
    assert not made.queries(inputs([0, 0], [0.0, 0.0], [0, 0, 0])).any()


def test_candidates_and_remembered_pins_have_vectors_of_their_own() -> None:
    made = table().train()
    made.queries(inputs([3, 1], [0.0, 0.0], [2, 0, 0])).sum().backward()  # type: ignore[no-untyped-call]
    assert made.rows.weight.grad is None
    assert made.remembered.weight.grad is not None
    assert made.remembered.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist() == [1, 2, 3]
