"""Encoded inputs to tokens: missing values, padding, id dropout, sequences, and the module contract."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.modules.contract import BATCH, ModuleContract
from trainers.modules.embedding import (
    CountedTable,
    FieldEmbedding,
    FieldEmbeddingConfig,
    SequenceEmbedding,
    SequenceEmbeddingConfig,
    masked_mean,
)

USER = FieldEmbeddingConfig(
    side="user",
    field_dim=4,
    num_dense=3,
    dense_tokens=2,
    categorical_sizes=(2, 3),
    multi_sizes=(4, 0),
    id_buckets=(0, 6),
    vector_dims=(2,),
)


def user_inputs() -> dict[str, Tensor]:
    """Every kind of input; `user_multi_1` and `user_id_0` are read by someone else."""
    random = torch.Generator().manual_seed(0)
    return {
        "user_dense": torch.randn(BATCH, 6, generator=random),
        "user_categorical": torch.tensor([[0, 0], [1, 2], [0, 1], [1, 0], [1, 1], [0, 2]]),
        "user_multi_0": torch.tensor([[0, 0], [1, 0], [2, 3], [3, 3], [1, 2], [0, 1]]),
        "user_multi_1": torch.zeros(BATCH, 9, dtype=torch.int64),
        "user_id_0": torch.zeros(BATCH, 9, dtype=torch.int64),
        "user_id_1": torch.tensor([0, 1, 2, 3, 4, 5]),
        "user_vector_0": torch.randn(BATCH, 3, generator=random),
    }


class TestFieldEmbedding(ModuleContract):
    def make(self) -> nn.Module:
        return FieldEmbedding(dataclasses.replace(USER, id_dropout=0.5))

    def inputs(self) -> tuple[dict[str, Tensor], ...]:
        return (user_inputs(),)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(USER.num_fields, 4)]


SEQUENCE = SequenceEmbeddingConfig(pin_dim=3, model_dim=4, max_length=3, num_actions=3, num_surfaces=3, use_ages=True)


class TestSequenceEmbedding(ModuleContract):
    def make(self) -> nn.Module:
        return SequenceEmbedding(SEQUENCE)

    def inputs(self) -> tuple[Tensor, ...]:
        random = torch.Generator().manual_seed(0)
        pins = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 2, 0], [1, 2, 3], [4, 4, 4], [5, 0, 0]])
        present = pins > 0
        actions = torch.tensor([[1, 2, 4], [3, 5, 7], [7, 1, 2], [4, 6, 0], [1, 0, 5], [2, 2, 2]]) * present
        surfaces = torch.tensor([[1, 2, 0], [2, 1, 0], [1, 1, 1], [2, 2, 0], [0, 1, 2], [2, 2, 2]]) * present
        ages = torch.linspace(-4.0, 4.0, 18).reshape(6, 3)[torch.randperm(6, generator=random)]
        return torch.randn(BATCH, 3, 3, generator=random), pins, actions, surfaces, ages

    def shapes(self) -> list[tuple[int, ...]]:
        return [(3, 4), (3,)]


def test_counted_table_answers_with_row_0_until_the_count_is_reached() -> None:
    table = CountedTable(5, 1, min_count=2, sparse=True)
    with torch.no_grad():
        table.weight.copy_(torch.arange(5.0)[:, None])
    table.count(torch.tensor([3, 3, 4]))
    assert table(torch.tensor([[0, 3], [4, 2]])).flatten().tolist() == [0.0, 3.0, 0.0, 0.0]
    table.count(torch.tensor([4]))
    assert table(torch.tensor([4])).flatten().tolist() == [4.0]
    assert table.state_dict()["counts"].tolist() == [0, 0, 0, 2, 2]


def test_field_embedding_counts_its_tokens() -> None:
    # Two dense, two categorical, one of two multi-valued, one of two ids, one vector.
    assert USER.num_fields == 7


def test_categorical_columns_do_not_share_rows() -> None:
    embedding = FieldEmbedding(FieldEmbeddingConfig(side="pin", field_dim=1, categorical_sizes=(2, 3, 1)))
    assert embedding.categorical is not None
    embedding.categorical.weight.data = torch.arange(6.0)[:, None]
    tokens = embedding({"pin_categorical": torch.tensor([[0, 0, 0], [1, 2, 0]])})
    assert tokens.squeeze(-1).tolist() == [[0.0, 2.0, 5.0], [1.0, 4.0, 5.0]]


def test_field_embedding_orders_tokens_by_kind() -> None:
    config = FieldEmbeddingConfig(
        side="a", field_dim=1, num_dense=1, multi_sizes=(3,), id_buckets=(3,), vector_dims=(1,)
    )
    embedding = FieldEmbedding(config)
    with torch.no_grad():
        for weight in embedding.parameters():
            weight.zero_()
        embedding.dense.bias.fill_(1.0)
        embedding.multi["0"].weight.fill_(2.0)
        embedding.ids["0"].weight.fill_(3.0)
        embedding.vectors[0].bias.fill_(4.0)
    inputs = {
        "a_dense": torch.zeros(1, 2),
        "a_multi_0": torch.ones(1, 2, dtype=torch.int64),
        "a_id_0": torch.ones(1, dtype=torch.int64),
        "a_vector_0": torch.zeros(1, 2),
    }
    assert embedding(inputs).flatten().tolist() == [1.0, 2.0, 3.0, 4.0]


def test_vectors_are_scaled_and_their_flags_are_not() -> None:
    config = FieldEmbeddingConfig(side="a", field_dim=1, vector_dims=(2, 1), vector_scales=(3.0, 1.0))
    embedding = FieldEmbedding(config)
    with torch.no_grad():
        for linear in embedding.vectors:
            linear.weight.fill_(1.0)
            linear.bias.zero_()
    inputs = {"a_vector_0": torch.tensor([[0.5, -1.0, 1.0]]), "a_vector_1": torch.tensor([[0.5, 1.0]])}
    assert embedding(inputs).flatten().tolist() == [3.0 * (0.5 - 1.0) + 1.0, 0.5 + 1.0]


def test_dense_outliers_are_cut() -> None:
    embedding = FieldEmbedding(FieldEmbeddingConfig(side="a", field_dim=2, num_dense=1, dense_clip=3.0))
    far, farther = torch.tensor([[3.0, 0.0]]), torch.tensor([[1e30, 0.0]])
    assert torch.equal(embedding({"a_dense": far}), embedding({"a_dense": farther}))


@pytest.mark.parametrize(
    ("indices", "expected"),
    [([1, 2, 0], 15.0), ([2, 0, 2], 20.0), ([3, 0, 0], 30.0), ([0, 0, 0], 7.0), ([1, 2, 3], 20.0)],
)
def test_masked_mean_ignores_padding_and_gives_row_zero_to_empty_lists(indices: list[int], expected: float) -> None:
    table = nn.Embedding.from_pretrained(torch.tensor([[7.0], [10.0], [20.0], [30.0]]))
    assert masked_mean(table, torch.tensor([indices])).item() == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=5))
def test_masked_mean_agrees_with_a_mean_of_the_kept_rows(rows: list[list[int]]) -> None:
    table = nn.Embedding.from_pretrained(torch.arange(12.0).reshape(6, 2))
    expected = [table.weight[[i for i in row if i] or [0]].mean(dim=0) for row in rows]
    torch.testing.assert_close(masked_mean(table, torch.tensor(rows)), torch.stack(expected))


def test_id_dropout_hides_whole_rows_in_training_only() -> None:
    config = FieldEmbeddingConfig(side="user", field_dim=1, id_buckets=(3, 3), id_dropout=0.5)
    embedding = FieldEmbedding(config)
    for table in embedding.ids.values():
        table.weight.data = torch.tensor([[0.0], [1.0], [2.0]])
    ids = {"user_id_0": torch.ones(1000, dtype=torch.int64), "user_id_1": torch.full((1000,), 2)}
    torch.manual_seed(0)
    first, second = embedding.train()(ids).squeeze(-1).unbind(1)
    assert torch.equal(2 * first, second)
    assert 0.4 < (first == 0).float().mean() < 0.6
    assert (embedding.eval()(ids).squeeze(-1) == torch.tensor([1.0, 2.0])).all()


def test_field_embedding_names_an_input_that_is_absent() -> None:
    inputs = user_inputs()
    del inputs["user_vector_0"]
    with pytest.raises(KeyError, match="user_vector_0"):
        FieldEmbedding(USER)(inputs)


def zeroed_sequence(**declared: object) -> SequenceEmbedding:
    """A sequence embedding of width 1 whose weights are all 0."""
    config = SequenceEmbeddingConfig(pin_dim=1, model_dim=1, max_length=3, **declared)
    embedding = SequenceEmbedding(config)
    for weight in embedding.parameters():
        weight.data.zero_()
    return embedding


def test_action_bits_add_up_their_embeddings() -> None:
    embedding = zeroed_sequence(num_actions=3)
    assert embedding.action is not None
    embedding.action.weight.data = torch.tensor([[1.0, 10.0, 100.0]])
    pins = torch.ones(1, 3, dtype=torch.int64)
    tokens, _ = embedding(torch.zeros(1, 3, 1), pins, actions=torch.tensor([[0, 5, 6]]))
    assert tokens.flatten().tolist() == [0.0, 101.0, 110.0]


@pytest.mark.parametrize(("age", "expected"), [(0.0, 4.0), (0.25, 4.25), (-9.0, 1.0), (9.0, 7.0)])
def test_ages_are_read_piecewise_linearly_and_cut_at_both_ends(age: float, expected: float) -> None:
    embedding = zeroed_sequence(use_ages=True)
    assert embedding.age is not None
    embedding.age.weight.data = torch.arange(1.0, 8.0)[None]
    tokens, _ = embedding(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.int64), ages=torch.tensor([[age]]))
    assert tokens.item() == pytest.approx(expected)


def test_positions_count_back_from_the_newest_and_padding_is_zero() -> None:
    embedding = zeroed_sequence()
    embedding.position.weight.data = torch.tensor([[1.0], [2.0], [3.0]])
    tokens, present = embedding(torch.zeros(2, 4, 1), torch.tensor([[5, 6, 0, 0], [5, 6, 7, 8]]))
    # Positions beyond the longest share the last row.
    assert tokens.squeeze(-1).tolist() == [[2.0, 1.0, 0.0, 0.0], [3.0, 3.0, 2.0, 1.0]]
    assert present.tolist() == [[True, True, False, False], [True] * 4]


@pytest.mark.parametrize("declared", [{}, {"num_actions": 2}])
def test_sequence_embedding_refuses_inputs_that_do_not_fit_its_config(declared: dict[str, object]) -> None:
    pins = torch.ones(1, 3, dtype=torch.int64)
    actions = None if declared else pins
    with pytest.raises(ValueError, match="actions must be given exactly when declared"):
        zeroed_sequence(**declared)(torch.zeros(1, 3, 1), pins, actions=actions)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"field_dim": 0}, "field_dim must be at least 1"),
        ({"num_dense": -1}, "num_dense must be at least 0"),
        ({"categorical_sizes": (2, 0)}, "categorical_sizes must all be at least 1"),
        ({"vector_dims": (0,)}, "vector_dims must all be at least 1"),
        ({"vector_scales": (1.0, 1.0)}, r"vector_scales must be one for each vector or none \(got 2 for 1 vectors\)"),
        ({"id_dropout": 1.0}, r"id_dropout must be in \[0, 1\)"),
        ({"dense_clip": 0.0}, "dense_clip must be positive"),
        (
            {"num_dense": 0, "categorical_sizes": (), "multi_sizes": (), "id_buckets": (0,), "vector_dims": ()},
            "side 'user' must have at least one input",
        ),
    ],
)
def test_field_embedding_refuses_impossible_sizes(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(USER, **wrong)


def test_sequence_embedding_refuses_bitmasks_that_a_float_cannot_hold() -> None:
    with pytest.raises(ValueError, match=r"num_actions must be in 0..24 \(got 25\)"):
        SequenceEmbeddingConfig(pin_dim=1, model_dim=1, max_length=1, num_actions=25)
