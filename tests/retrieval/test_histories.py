"""What the table of Pins learns from long histories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainers.data.examples import Examples
from trainers.modules.embedding import FieldEmbeddingConfig
from trainers.modules.side import SequenceInputs, SideConfig
from trainers.retrieval import histories as subject
from trainers.retrieval.histories import learn_histories
from trainers.retrieval.model import TwoTower, TwoTowerConfig
from trainers.retrieval.recipes import HistoryRecipe

CONFIG = TwoTowerConfig(
    user=SideConfig(fields=FieldEmbeddingConfig(side="user", field_dim=4, num_dense=2)),
    pin=SideConfig(fields=FieldEmbeddingConfig(side="pin", field_dim=4, num_dense=2)),
    remembered=(
        SequenceInputs(pins="user_id_0", length=2, actions="user_list_0", num_actions=2),
        SequenceInputs(pins="user_id_1", length=6),
    ),
    sequence_buckets=16,
    pin_bucket="pin_id_0",
    hidden_dim=8,
    output_dim=4,
)
RECIPE = HistoryRecipe(length=6, epochs=30, lr=5e-2)


def histories(count: int = 64) -> Examples:
    """Users of odd Pins and of even ones, among the buckets 1 to 12; their newest places are empty."""
    random = np.random.default_rng(0)
    pins = np.stack([random.permutation(6)[:5] * 2 + 1 + (user % 2) for user in range(count)])
    padded = np.concatenate([pins, np.zeros((count, 1), np.int64)], axis=1)
    return Examples(inputs={"user_id_1": padded.astype(np.int32)}, labels=np.empty((count, 0), np.float32))


def learnt(recipe: HistoryRecipe, data: Examples, seed: int = 1) -> TwoTower:
    """A model that has seen the histories."""
    torch.manual_seed(0)
    model = TwoTower(CONFIG)
    learn_histories(model, recipe, data, batch_size=16, temperature=0.1, seed=seed)
    return model


def same(one: TwoTower, other: TwoTower) -> bool:
    """Whether two models have the same weights."""
    weights = other.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.state_dict().items())


def test_learn_histories_brings_pins_of_one_history_together() -> None:
    model = learnt(RECIPE, histories()).eval()
    assert model.pin_table is not None
    asked = {
        "user_id_0": torch.zeros(2, 2, dtype=torch.long),
        "user_list_0": torch.zeros(2, 2),
        "user_id_1": torch.tensor([[1, 3, 0, 0, 0, 0], [2, 4, 0, 0, 0, 0]]),
    }
    scores = model.pin_table.queries(asked) @ model.pin_table.rows.weight[5:13].T
    odd = torch.arange(5, 13) % 2 == 1
    assert scores[0, odd].min() > scores[0, ~odd].max()
    assert scores[1, ~odd].min() > scores[1, odd].max()


def test_learn_histories_leaves_the_towers_alone() -> None:
    fresh, model = learnt(replace(RECIPE, epochs=0), histories()), learnt(replace(RECIPE, epochs=1), histories())
    before = fresh.state_dict()
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"pin_table"}


def test_learn_histories_repeats_with_its_seed() -> None:
    once, again, other = (learnt(replace(RECIPE, epochs=1), histories(), seed) for seed in (1, 1, 2))
    assert same(once, again)
    assert not same(once, other)


@pytest.mark.parametrize("pins", [np.zeros((8, 6), np.int32), np.full((8, 6), 3, np.int32), None])
def test_learn_histories_has_nothing_to_learn_without_two_pins(pins: np.ndarray | None) -> None:
    inputs = {} if pins is None else {"user_id_1": pins}
    empty = Examples(inputs=inputs, labels=np.empty((8, 0), np.float32))
    assert same(learnt(RECIPE, empty), learnt(replace(RECIPE, epochs=0), histories()))


def test_hidden_pins_are_targets_once_and_no_longer_inputs() -> None:
    sequences = CONFIG.remembered[1:]
    users = Examples(
        inputs={"user_id_1": np.array([[5, 2, 5, 9, 0, 0]], np.int32)}, labels=np.empty((1, 0), np.float32)
    )
    place = np.full(16, -1)
    place[[5, 9]] = [0, 1]
    hidden = subject._Hidden(buckets=np.array([5, 9]), place=place)
    rows, places = subject._targets(users, list(sequences), hidden)
    assert (rows.tolist(), places.tolist()) == ([0, 0], [0, 1])
    left = dict(subject._left(users, sequences, list(sequences), hidden))
    assert left["user_id_1"].tolist() == [[0, 2, 0, 0, 0, 0]]


def test_a_batch_hides_a_share_of_the_pins_up_to_a_bound() -> None:
    rng, buckets = np.random.default_rng(0), np.arange(1, 11)
    assert len(subject._hide(buckets, HistoryRecipe(hidden_share=0.5), rng, 16).buckets) == 5
    hidden = subject._hide(buckets, HistoryRecipe(hidden_share=0.5, max_hidden=3), rng, 16)
    assert len(hidden.buckets) == 3
    assert hidden.place[hidden.buckets].tolist() == [0, 1, 2]
    assert (hidden.place >= 0).sum() == 3


@pytest.mark.parametrize(
    ("recipe", "message"),
    [({"hidden_share": 1.0}, r"above 0 and below 1 \(got 1.0\)"), ({"max_hidden": 1}, r"at least 2 \(got 1\)")],
)
def test_history_recipe_refuses_what_hides_all_or_nothing(recipe: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HistoryRecipe(**recipe)  # type: ignore[arg-type]


def test_learn_histories_stops_at_a_loss_that_is_not_finite() -> None:
    torch.manual_seed(0)
    model = TwoTower(CONFIG)
    assert model.pin_table is not None
    model.pin_table.rows.weight.data[:] = torch.nan
    with pytest.raises(FloatingPointError, match="lower the history recipe's lr"):
        learn_histories(model, RECIPE, histories(), batch_size=16, temperature=0.1, seed=1)
