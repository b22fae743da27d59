"""Collaborative filtering on engagements: closed forms by brute force, and what each must recover."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_matrix

from trainers.retrieval import baselines
from trainers.retrieval.baselines import als, ease, item_knn
from trainers.retrieval.full_ranking import ScoreRows

Matrix = npt.NDArray[np.float32]


def engagements(users: int, pins: int, seed: int = 0) -> Matrix:
    """Random engagements, at least one a user."""
    random = np.random.default_rng(seed)
    found = (random.random((users, pins)) < 0.3).astype(np.float32)
    found[np.arange(users), random.integers(pins, size=users)] = 1.0
    return found


def all_scores(rows: ScoreRows, users: int) -> Matrix:
    """Scores of every user, read in two parts."""
    return np.concatenate([rows(0, 1), rows(1, users)])


def brute_force_ease(found: Matrix, queries: Matrix, l2: float) -> npt.NDArray[np.float64]:
    """Each Pin's weights by a ridge regression on all other Pins, which is what EASE solves at once."""
    weights = np.zeros((found.shape[1],) * 2)
    for pin in range(found.shape[1]):
        others = np.delete(np.arange(found.shape[1]), pin)
        x, y = found[:, others].astype(np.float64), found[:, pin]
        weights[others, pin] = np.linalg.solve(x.T @ x + l2 * np.eye(len(others)), x.T @ y)
    product: npt.NDArray[np.float64] = queries @ weights
    return product


@pytest.mark.parametrize(("users", "pins"), [(30, 8), (8, 30)], ids=["fewer Pins", "fewer users"])
@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_ease_is_a_ridge_regression_of_each_pin_on_the_others(users: int, pins: int, l2: float) -> None:
    found, queries = engagements(users, pins), engagements(5, pins, seed=1)
    scores = all_scores(ease(csr_matrix(found), csr_matrix(queries), l2=l2), 5)
    np.testing.assert_allclose(scores, brute_force_ease(found, queries, l2), atol=2e-4)


def test_ease_refuses_what_it_cannot_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    found = csr_matrix(engagements(4, 5))
    with pytest.raises(ValueError, match=r"l2 must be more than 0 \(got 0\.0\)"):
        ease(found, found, l2=0.0)
    monkeypatch.setattr(baselines, "EASE_LIMIT", 3)
    with pytest.raises(ValueError, match=r"must be at most 3 for EASE \(got \(4, 5\)\)"):
        ease(found, found, l2=1.0)


def test_item_knn_sums_cosines_by_hand() -> None:
    found = csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1]], np.float32))
    scores = item_knn(found, csr_matrix(np.array([[0, 1, 0]], np.float32)), similarity="cosine", neighbours=3)(0, 1)
    np.testing.assert_allclose(scores, [[2 / np.sqrt(3 * 2), 1.0, 0.0]], rtol=1e-5)


@pytest.mark.parametrize("name", ["als", "cosine", "bm25"])
def test_users_get_the_pins_of_their_own_kind(name: str) -> None:
    kinds = np.kron(np.eye(2), np.ones((20, 6))).astype(np.float32)
    found = csr_matrix(kinds * engagements(40, 12))
    queries = csr_matrix(np.array([[1, 1, 0] + [0] * 9, [0] * 6 + [0, 1, 1, 0, 0, 0]], np.float32))
    if name == "als":
        rows = als(found, queries, factors=2, l2=0.1, alpha=10.0, iterations=10, seed=1)
    else:
        rows = item_knn(found, queries, similarity=name, neighbours=12)
    scores = rows(0, 2)
    assert scores[0, 2:6].min() > scores[0, 6:].max()
    assert scores[1, [6, 9, 10, 11]].min() > scores[1, :6].max()


def test_als_repeats_with_its_seed_and_scores_a_user_without_engagements() -> None:
    found = csr_matrix(engagements(20, 6))
    queries = csr_matrix((2, 6), dtype=np.float32)
    first, again, other = (
        als(found, found, factors=3, l2=0.1, alpha=5.0, iterations=2, seed=seed)(0, 20) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert not np.allclose(first, other)
    assert (als(found, queries, factors=3, l2=0.1, alpha=5.0, iterations=2, seed=1)(0, 2) == 0.0).all()
