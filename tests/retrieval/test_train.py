"""Training two towers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from trainers.data.engaged_pairs import Pairs
from trainers.data.examples import Examples
from trainers.modules.embedding import FieldEmbeddingConfig
from trainers.modules.side import SequenceInputs, SideConfig
from trainers.retrieval.model import QueryTower, SharedVectors, TwoTower, TwoTowerConfig
from trainers.retrieval.recipes import RetrievalRecipe
from trainers.retrieval.train import _optimizer, embed, train_two_tower

CONFIG = TwoTowerConfig(
    user=SideConfig(fields=FieldEmbeddingConfig(side="user", field_dim=4, num_dense=2)),
    pin=SideConfig(fields=FieldEmbeddingConfig(side="pin", field_dim=4, vector_dims=(2,))),
    hidden_dim=8,
    output_dim=4,
)
BLOCKS = TwoTowerConfig(
    user=SideConfig(
        fields=FieldEmbeddingConfig(side="user", field_dim=4, vector_dims=(2,), id_buckets=(0,)),
        sequences=(SequenceInputs(pins="user_id_0", length=3),),
    ),
    pin=SideConfig(fields=FieldEmbeddingConfig(side="pin", field_dim=4, vector_dims=(2,))),
    shared=(SharedVectors(user="user_vector_0", pin="pin_vector_0", dim=2, weight=0.5),),
    remembered=(SequenceInputs(pins="user_id_0", length=3),),
    sequence_buckets=8,
    pin_bucket="pin_bucket",
    hidden_dim=8,
    output_dim=4,
    tower_weight=0.0,
)
"""Every block of the inner product, the towers' silent before training."""
RECIPE = RetrievalRecipe(token_dim=4, hidden_dim=8, output_dim=4, batch_size=16, epochs=3)


def pairs(count: int = 48) -> Pairs:
    """Users of two kinds that engage with Pins of their kind."""
    random = np.random.default_rng(0)
    kinds, pins = random.integers(0, 2, count), random.integers(0, 6, count)
    pins = 2 * (pins // 2) + kinds
    sides = np.where(kinds[:, None] == [0, 1], 1.0, -1.0).astype(np.float32)
    one = np.ones((count, 1), np.float32)
    return Pairs(
        examples=Examples(
            inputs={
                "user_dense": np.concatenate([sides, 0 * sides], axis=1),
                "pin_vector_0": np.concatenate([sides, one], axis=1),
            },
            labels=np.empty((count, 0), np.float32),
        ),
        user_ids=np.arange(count),
        pin_ids=pins,
        event_micros=np.arange(count),
    )


def train(recipe: RetrievalRecipe = RECIPE, count: int = 48) -> list[dict[str, torch.Tensor]]:
    """Weights of the model after each epoch."""
    models = train_two_tower(CONFIG, recipe, pairs(count), hidden_vectors=(("pin_vector_0",),), seed=1)
    return [{name: value.clone() for name, value in model.state_dict().items()} for model in models]


def test_train_two_tower_brings_engaged_pairs_together() -> None:
    model = TwoTower(CONFIG).eval()
    model.load_state_dict(train(replace(RECIPE, epochs=12, lr=2e-2))[-1])
    data = pairs()
    scores = embed(model, "user", data.examples) @ embed(model, "pin", data.examples).T
    same = (data.pin_ids[:, None] % 2) == (data.pin_ids[None, :] % 2)
    assert scores[same].mean() > scores[~same].mean() + 0.5 * float(model.tower_weight.detach())


def test_train_two_tower_gives_the_model_after_every_epoch_ready_to_score() -> None:
    ready = [model.training for model in train_two_tower(CONFIG, RECIPE, pairs(), hidden_vectors=(), seed=1)]
    assert ready == [False] * RECIPE.epochs
    first, second, third = train()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(second[name], third[name]) for name in first)


def test_train_two_tower_repeats_with_its_seed() -> None:
    first, again = (train()[-1] for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_optimizer_does_not_pull_the_weights_of_blocks_to_zero() -> None:
    model = TwoTower(BLOCKS)
    others, weights = _optimizer(model, RECIPE).param_groups
    assert (weights["lr"], weights["weight_decay"]) == (RECIPE.weights_lr, 0.0)
    assert [tuple(each.shape) for each in weights["params"]] == [(), (1,), (), (3,), (0,)]
    assert (others["lr"], others["weight_decay"]) == (RECIPE.lr, RECIPE.weight_decay)
    assert len(others["params"]) + 5 == len(list(model.parameters()))


def test_train_two_tower_needs_two_pairs() -> None:
    with pytest.raises(ValueError, match=r"at least two engaged pairs to train on \(got 1\)"):
        train(count=1)


def test_train_two_tower_stops_at_a_loss_that_is_not_finite() -> None:
    data = pairs()
    data.examples.inputs["user_dense"][:] = np.nan
    with pytest.raises(FloatingPointError, match="loss must be finite"):
        next(train_two_tower(CONFIG, RECIPE, data, hidden_vectors=(), seed=1))


def block_inputs() -> dict[str, npt.NDArray[np.generic]]:
    """Two rows: a user of the Pins in buckets 3 and 5 against the Pin in 3, and one of none against the Pin in 5."""
    return {
        "user_vector_0": np.array([[0.6, 0.8, 1.0], [0.0, 0.0, 0.0]], np.float32),
        "pin_vector_0": np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], np.float32),
        "user_id_0": np.array([[3, 5, 0], [0, 0, 0]], np.int32),
        "pin_bucket": np.array([3, 5], np.int32),
    }


def test_inner_product_is_the_sum_of_its_blocks_by_hand() -> None:
    model = TwoTower(BLOCKS).eval()
    rows, remembered = torch.zeros(8, 4), torch.zeros(8, 4)
    rows[3, 0], rows[5, 1], rows[5, 2] = 2.0, 3.0, 1.0
    remembered[3, 0], remembered[5, 1] = 1.0, 4.0
    weights = {
        "rows.weight": rows,
        "remembered.weight": remembered,
        "weight": torch.tensor(0.1),
        "anyone": torch.tensor([0.0, 0.0, 7.0, 0.0]),
        "counted.0.places": torch.tensor([2.0, 1.0, 0.0]).log(),
    }
    model.load_state_dict(model.state_dict() | {f"pin_table.{name}": value for name, value in weights.items()}, False)
    data = Examples(inputs=block_inputs(), labels=np.empty((2, 0), np.float32))
    scores = embed(model, "user", data) @ embed(model, "pin", data).T
    # Upstream: 0.5 * (0.6, 0.8). Table, bucket 5 being the newest and counting double:
    # 0.1 * ((1, 8, 0, 0) / sqrt(1 + 4 + 0.5) + (0, 0, 7, 0)) against (2, 0, 0, 0) and (0, 3, 1, 0).
    # Without a Pin what holds for anyone is left.
    root = np.sqrt(5.5)
    expected = [[0.3 + 0.2 / root, 0.4 + 2.4 / root + 0.7], [0.0, 0.7]]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert BLOCKS.vector_dim == 4 + 2 + 4


def test_embed_gives_towers_of_unit_length_also_of_nobody() -> None:
    model, data = TwoTower(CONFIG).eval(), pairs()
    for side in ("user", "pin"):
        np.testing.assert_allclose(np.linalg.norm(embed(model, side, data.examples), axis=1), 1.0, atol=1e-5)
        assert embed(model, side, data.examples.take(np.empty(0, np.int64))).shape == (0, 4)


def test_query_tower_adds_the_one_that_weighs_popularity() -> None:
    model, data = TwoTower(CONFIG).eval(), pairs()
    query = QueryTower(model)(data.examples.tensors(np.arange(3)))["query"]
    assert query.shape == (3, 5)
    assert query[:, -1].tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(query[:, :-1].detach(), embed(model, "user", data.examples)[:3], atol=1e-6)
