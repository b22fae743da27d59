"""The logistic regression: its design matrix, that it learns, and what it does with values it has not met."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.metrics import roc_auc
from trainers.ranking.boosted import Columns
from trainers.ranking.logistic import Design, train_logistic
from trainers.ranking.recipes import LogisticRecipe


def columns(values: list[list[float]]) -> Columns:
    """A number and a category."""
    return Columns(names=("age", "kind"), categorical=(1,), values=np.array(values, np.float32))


def test_design_standardises_numbers_flags_missing_ones_and_gives_a_category_a_column() -> None:
    train = columns([[1.0, 0.0], [3.0, 2.0], [np.nan, 1.0]])
    design = Design.fit(train)
    assert (design.means[0], design.scales[0], design.sizes) == (2.0, 1.0, (3,))
    found = design.matrix(columns([[3.0, 2.0], [np.nan, 0.0], [100.0, 9.0]])).toarray()
    expected = [[1.0, 0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(found, expected)


def rows(count: int, seed: int) -> tuple[Columns, np.ndarray]:
    """Rows whose label follows from both columns."""
    random = np.random.default_rng(seed)
    age, kind = random.normal(size=count), random.integers(0, 3, count)
    labels = (random.random(count) < 1.0 / (1.0 + np.exp(-2.0 * age - 2.0 * (kind == 1)))).astype(np.float32)
    return columns(np.stack([age, kind], axis=1).tolist()), labels


def test_regression_finds_what_labels_follow_from() -> None:
    train, validation, test = rows(2000, 1), rows(500, 2), rows(2000, 3)
    found = train_logistic(train, validation, LogisticRecipe())
    ideal = 2.0 * test[0].values[:, 0] + 2.0 * (test[0].values[:, 1] == 1.0)
    assert roc_auc(test[1], found.logits(test[0])) == pytest.approx(roc_auc(test[1], ideal), abs=0.005)
    np.testing.assert_allclose(found.weights[0] / train[0].values[:, 0].std(), 2.0, atol=0.3)


def test_regression_takes_the_strength_that_validation_likes_best() -> None:
    train, validation = rows(30, 1), rows(2000, 2)
    strong = train_logistic(train, validation, LogisticRecipe(inverse_l2=(1e-6, 0.3)))
    assert strong.inverse_l2 == 0.3
    noise = (train[0], np.random.default_rng(5).permutation(train[1]))
    assert train_logistic(noise, validation, LogisticRecipe(inverse_l2=(1e-6, 1000.0))).inverse_l2 == 1e-6
