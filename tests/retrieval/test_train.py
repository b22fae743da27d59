"""Ranking a corpus against brute force, and training two towers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.examples import Examples
from trainers.metrics import ndcg_at_k, recall_at_k
from trainers.modules.embedding import FieldEmbeddingConfig
from trainers.modules.side import SequenceInputs, SideConfig
from trainers.retrieval.model import QueryTower, SharedVectors, TwoTower, TwoTowerConfig
from trainers.retrieval.recipes import RetrievalRecipe
from trainers.retrieval.train import Pairs, _optimizer, embed, top_pins, top_pins_by_bias, train_two_tower

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
    sequence_buckets=8,
    pin_bucket="pin_bucket",
    hidden_dim=8,
    output_dim=4,
    tower_weight=0.0,
)
"""Every block of the inner product, the towers' silent before training."""
RECIPE = RetrievalRecipe(token_dim=4, hidden_dim=8, output_dim=4, batch_size=16, epochs=3)


def column(*values: float) -> npt.NDArray[np.float32]:
    """Vectors of width 1."""
    return np.array(values, np.float32)[:, None]


def keys(*values: int) -> npt.NDArray[np.int64]:
    """Positions."""
    return np.array(values, np.int64)


NO_BIAS = np.zeros(4, np.float32)


def test_top_pins_rank_by_inner_product_plus_bias() -> None:
    bias = np.array([0.0, 0.0, 2.5, 0.0], np.float32)
    assert top_pins(column(1.0, -1.0), column(1, 2, 0, 3), bias, [keys()] * 2, 3).tolist() == [[3, 2, 1], [2, 0, 1]]


def test_top_pins_leave_out_what_each_user_has_seen() -> None:
    seen = [keys(3), keys(), keys(0, 1)]
    found = top_pins(column(1, 1, 1), column(1, 2, 0, 3), NO_BIAS, seen, 2)
    assert found.tolist() == [[1, 0], [3, 1], [3, 2]]


def test_top_pins_give_minus_one_where_nothing_unseen_is_left() -> None:
    found = top_pins(column(1, 1), column(1, 2, 0, 3), NO_BIAS, [keys(0, 1, 2), keys(0, 1, 2, 3)], 3)
    assert found.tolist() == [[3, -1, -1], [-1, -1, -1]]


def test_top_pins_rank_equal_scores_by_position() -> None:
    assert top_pins(column(0.0), column(1, 2, 0, 3), NO_BIAS, [keys(1)], 2).tolist() == [[0, 2]]
    bias = np.array([0.0, 1.0, 0.0, 1.0], np.float32)
    assert top_pins(column(0.0), column(1, 2, 0, 3), bias, [keys()], 3).tolist() == [[1, 3, 0]]


def test_top_pins_by_bias_are_those_of_each_bias_alone() -> None:
    biases = np.array([[0.0, 0.0, 2.5, 0.0], [5.0, 0.0, 0.0, 0.0]], np.float32)
    queries, candidates, seen = column(1.0, -1.0), column(1, 2, 0, 3), [keys(1), keys()]
    found = top_pins_by_bias(queries, candidates, biases, seen, 3)
    assert found.tolist() == [top_pins(queries, candidates, bias, seen, 3).tolist() for bias in biases]
    assert found[1].tolist() == [[0, 3, 2], [0, 2, 1]]


def test_top_pins_of_the_whole_corpus_is_an_order_of_it() -> None:
    assert top_pins(column(1.0), column(1, 2, 0, 3), NO_BIAS, [keys()], 4).tolist() == [[3, 1, 0, 2]]


def test_top_pins_of_nobody_are_nothing() -> None:
    assert top_pins(np.empty((0, 1), np.float32), column(1, 2, 0, 3), NO_BIAS, [], 2).shape == (0, 2)


@pytest.mark.parametrize("k", [0, 5])
def test_top_pins_refuse_a_k_outside_the_corpus(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be in 1\.\.4, .*\(got {k}\)"):
        top_pins(column(1.0), column(1, 2, 0, 3), NO_BIAS, [keys()], k)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_top_pins_refuse_vectors_that_are_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"candidates must be finite \(got 1 elements"):
        top_pins(column(1.0), column(1, value, 0, 3), NO_BIAS, [keys()], 2)


def brute_force(scores: npt.NDArray[np.float32], seen: set[int], k: int) -> list[int]:
    """The same by sorting everything."""
    unseen = [pin for pin in range(len(scores)) if pin not in seen]
    return (sorted(unseen, key=lambda pin: (-scores[pin], pin)) + [-1] * k)[:k]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_top_pins_equal_brute_force(data: st.DataObject) -> None:
    num_users, num_pins = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    small = st.integers(-2, 2)
    queries = column(*data.draw(st.lists(small, min_size=num_users, max_size=num_users)))
    candidates = column(*data.draw(st.lists(small, min_size=num_pins, max_size=num_pins)))
    bias = np.array(data.draw(st.lists(small, min_size=num_pins, max_size=num_pins)), np.float32)
    seen = [data.draw(st.sets(st.integers(0, num_pins - 1))) for _ in range(num_users)]
    k = data.draw(st.integers(1, num_pins))
    found = top_pins(queries, candidates, bias, [keys(*sorted(met)) for met in seen], k, chunk=2)
    scores = queries @ candidates.T + bias
    assert found.tolist() == [brute_force(row, met, k) for row, met in zip(scores, seen, strict=True)]


def test_recall_and_ndcg_of_top_pins_by_hand() -> None:
    ranked = top_pins(column(1, 1), column(1, 2, 0, 3), NO_BIAS, [keys(3), keys(0, 1, 2)], 2)
    assert ranked.tolist() == [[1, 0], [3, -1]]
    relevant = [keys(0, 2), keys(3)]
    assert recall_at_k(ranked, relevant, 2).tolist() == [0.5, 1.0]
    discount = 1.0 / np.log2(3.0)
    np.testing.assert_allclose(ndcg_at_k(ranked, relevant, 2), [discount / (1.0 + discount), 1.0])


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
    assert [tuple(each.shape) for each in weights["params"]] == [(), (1,), ()]
    assert (others["lr"], others["weight_decay"]) == (RECIPE.lr, RECIPE.weight_decay)
    assert len(others["params"]) + 3 == len(list(model.parameters()))


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
    table = torch.zeros(8, 4)
    table[3, 0], table[5, 1] = 2.0, 3.0
    assert model.pin_table is not None
    model.load_state_dict(model.state_dict() | {"pin_table.rows.weight": table, "pin_table.weight": torch.tensor(0.1)})
    data = Examples(inputs=block_inputs(), labels=np.empty((2, 0), np.float32))
    scores = embed(model, "user", data) @ embed(model, "pin", data).T
    # Upstream: 0.5 * (0.6, 0.8). Table: 0.1 * (2, 3, 0, 0) / sqrt(2) against (2, 0, 0, 0) and (0, 3, 0, 0).
    root = np.sqrt(2.0)
    expected = [[0.3 + 0.4 / root, 0.4 + 0.9 / root], [0.0, 0.0]]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert BLOCKS.vector_dim == 4 + 2 + 4


def test_embed_gives_towers_of_unit_length_also_of_nobody() -> None:
    model, data = TwoTower(CONFIG).eval(), pairs()
    for side in ("user", "pin"):
        np.testing.assert_allclose(np.linalg.norm(embed(model, side, data.examples), axis=1), 1.0, atol=1e-5)
        assert embed(model, side, data.examples.take(keys())).shape == (0, 4)


def test_query_tower_adds_the_one_that_weighs_popularity() -> None:
    model, data = TwoTower(CONFIG).eval(), pairs()
    query = QueryTower(model)(data.examples.tensors(np.arange(3)))["query"]
    assert query.shape == (3, 5)
    assert query[:, -1].tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(query[:, :-1].detach(), embed(model, "user", data.examples)[:3], atol=1e-6)
