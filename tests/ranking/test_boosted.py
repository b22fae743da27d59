"""The LightGBM ranker: what it reads, that it learns, and that it repeats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from feature_repo.encoding import CategoricalInput, DenseInput, InputSpec, MultiValuedInput, VectorInput
from trainers.data.examples import Examples
from trainers.ranking.boosted import Columns, columns_of, train_boosted
from trainers.ranking.recipes import BoostedRecipe

NUMBER = DenseInput(column="age", log=False, mean=0.0, scale=1.0)
USER = InputSpec(
    side="user",
    dense=(NUMBER,),
    multi_valued=(MultiValuedInput(column="recent_surfaces", vocabulary=("home",), length=3),),
    list_length=3,
    vectors=(VectorInput(column="user_vector", dim=2),),
)
PIN = InputSpec(
    side="pin",
    categorical=(
        CategoricalInput(column="kind", vocabulary=("a", "b")),
        CategoricalInput(column="author", vocabulary=tuple(range(50))),
    ),
    multi_valued=(MultiValuedInput(column="tag", vocabulary=(7, 8), length=2),),
    vectors=(VectorInput(column="pin_vector", dim=2),),
)
INPUTS = {
    "user_dense": np.array([[0.5, 0.0], [0.0, 1.0]], np.float32),
    "user_multi_0": np.ones((2, 3), np.int32),
    "user_vector_0": np.array([[0.6, 0.8, 1.0], [0.0, 0.0, 0.0]], np.float32),
    "pin_categorical": np.array([[1, 30], [2, 40]], np.int32),
    "pin_multi_0": np.array([[2, 1], [0, 0]], np.int32),
    "pin_vector_0": np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], np.float32),
}
RECIPE = BoostedRecipe(
    num_leaves=(2, 8), lr=0.3, max_rounds=40, patience=20, min_rows_in_leaf=10, max_bin=31, feature_fraction=1.0, l2=0.0
)


def columns(**more: int) -> Columns:
    """What the ranker reads of two rows."""
    examples = Examples(inputs=INPUTS, labels=np.zeros((2, 1), np.float32))
    pairs = [("user_vector_0", "pin_vector_0")]
    return columns_of(examples, (USER, PIN), pairs, **{"max_categories": 10, **more})


def test_columns_are_numbers_vectors_categories_and_products() -> None:
    found = columns()
    vectors = [f"{side}_vector[{element}]" for side in ("user", "pin") for element in (0, 1)]
    names = ("age", *vectors[:2], "kind", "tag[0]", *vectors[2:], "user_vector_0 · pin_vector_0")
    assert found.names == names
    assert found.categorical == (3, 4)
    expected = [[0.5, 0.6, 0.8, 1, 2, 1, 0, 0.6], [np.nan, np.nan, np.nan, 2, 0, 0, 1, np.nan]]
    np.testing.assert_array_equal(found.values, np.array(expected, np.float32))


def test_columns_take_categories_up_to_the_limit() -> None:
    assert "author" in columns(max_categories=51).names
    assert "author" not in columns(max_categories=50).names


def rows(count: int, seed: int) -> tuple[Columns, npt.NDArray[np.float32]]:
    """A label that two of three numbers decide together, which one split cannot tell."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, 3)).astype(np.float32)
    labels = ((values[:, 0] > 0) ^ (values[:, 1] > 0)).astype(np.float32)
    return Columns(names=("a", "b", "c"), categorical=(), values=values), labels


def test_boosted_ranker_takes_the_tree_size_with_the_least_validation_loss() -> None:
    found = train_boosted(rows(2000, 1), rows(500, 2), RECIPE, seed=1)
    assert (found.num_leaves, found.rounds <= RECIPE.max_rounds) == (8, True)
    assert found.validation_log_loss < 0.5
    later, labels = rows(500, 3)
    assert ((found.logits(later) > 0) == (labels == 1)).mean() > 0.9


def test_boosted_ranker_repeats_with_its_seed() -> None:
    later, _ = rows(100, 3)
    first, again, other = (
        train_boosted(rows(500, 1), rows(200, 2), RECIPE, seed=seed).logits(later) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_boosted_ranker_of_one_class_scores_every_row_alike(label: float) -> None:
    train, _ = rows(100, 1)
    labels = np.full(100, label, np.float32)
    assert len(set(train_boosted((train, labels), (train, labels), RECIPE, seed=1).logits(train))) == 1
