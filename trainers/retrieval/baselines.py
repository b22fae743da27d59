"""Collaborative filtering on engagements alone: what a retrieval model with features has to beat.

Each takes the engagements of all users [A, P] and of those who are asked for [U, P], and gives the latter's scores.
`implicit` has the first two, EASE is a closed form.
Source: Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008; Sarwar et al.,
"Item-based Collaborative Filtering Recommendation Algorithms", WWW 2001; Steck, "Embarrassingly Shallow Autoencoders
for Sparse Data", WWW 2019, arXiv:1905.03375.
Dims: A users with an engagement, U users who are asked for, P Pins, F factors.
"""

from __future__ import annotations

import warnings

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
from implicit.utils import ParameterWarning
from scipy.linalg.lapack import spotrf, spotri
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from trainers.retrieval.full_ranking import ScoreRows, Vectors, inner_products

EASE_LIMIT = 12_000
"""Users or Pins, whichever are fewer, that EASE is solved for: its time grows with their third power."""
_KNN = {"cosine": CosineRecommender, "bm25": BM25Recommender}


def als(
    everyone: csr_matrix, queries: csr_matrix, *, factors: int, l2: float, alpha: float, iterations: int, seed: int
) -> ScoreRows:
    """Weighted matrix factorisation by alternating least squares.

    Args:
        alpha: Confidence in an engagement, over 1 for none.
        l2: Weight decay of the factors.
    """
    # Its many small products are slower on BLAS threads than without, as `implicit` itself warns.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=l2,
            alpha=alpha,
            iterations=iterations,
            random_state=seed,
            num_threads=1,
            use_gpu=False,
        )
        model.fit(everyone, show_progress=False)
        users = model.recalculate_user(np.arange(queries.shape[0]), queries)
    return inner_products(np.asarray(users, np.float32), np.asarray(model.item_factors, np.float32))


def item_knn(everyone: csr_matrix, queries: csr_matrix, *, similarity: str, neighbours: int) -> ScoreRows:
    """Sum of the similarities of a Pin to those that the user engaged with.

    Args:
        similarity: `cosine` or `bm25`.
        neighbours: Most similar Pins that are kept of each.
    """
    model = _KNN[similarity](K=neighbours, num_threads=1)
    with warnings.catch_warnings():
        # About the format of a matrix that `implicit` makes itself.
        warnings.simplefilter("ignore", ParameterWarning)
        model.fit(everyone, show_progress=False)
    weights = csr_matrix(model.similarity, dtype=np.float32)
    return lambda start, stop: (queries[start:stop] @ weights).toarray()


def ease(everyone: csr_matrix, queries: csr_matrix, *, l2: float) -> ScoreRows:
    """The linear autoencoder with an empty diagonal that restores all users' engagements best, in closed form.

    With fewer users than Pins the same weights follow from a matrix over users, by Woodbury's identity.

    Args:
        l2: Weight decay, more than 0.

    Raises:
        ValueError: There are more than `EASE_LIMIT` users and Pins, or `l2` is not positive.
    """
    if l2 <= 0.0:
        raise ValueError(f"l2 must be more than 0 (got {l2})")
    if min(everyone.shape) > EASE_LIMIT:
        raise ValueError(f"users or Pins must be at most {EASE_LIMIT} for EASE (got {everyone.shape}); leave it out")
    return (
        _over_users(everyone, queries, l2)
        if everyone.shape[0] < everyone.shape[1]
        else _over_pins(everyone, queries, l2)
    )


def _over_pins(everyone: csr_matrix, queries: csr_matrix, l2: float) -> ScoreRows:
    weights = _regularised_inverse((everyone.T @ everyone).toarray(), l2)
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    return lambda start, stop: np.asarray(queries[start:stop] @ weights, np.float32)


def _over_users(everyone: csr_matrix, queries: csr_matrix, l2: float) -> ScoreRows:
    """With K = (X Xᵀ + l2)⁻¹ the inverse over Pins is (1 − Xᵀ K X) / l2, of which only products are needed."""
    kernel = _regularised_inverse((everyone @ everyone.T).toarray(), l2)
    projected = np.asarray(everyone.T @ kernel, np.float32).T
    diagonal = (1.0 - np.asarray(everyone.multiply(projected).sum(axis=0), np.float32).ravel()) / np.float32(l2)

    def scores(start: int, stop: int) -> Vectors:
        rows = queries[start:stop]
        restored = (rows.toarray() - (rows @ everyone.T).toarray() @ projected) / np.float32(l2)
        return np.asarray(rows.toarray() - restored / diagonal, np.float32)

    return scores


def _regularised_inverse(gram: Vectors, l2: float) -> Vectors:
    """Inverse of a symmetric matrix plus `l2` on its diagonal, in single precision and in the matrix' own memory."""
    gram[np.diag_indices_from(gram)] += np.float32(l2)
    # LAPACK stores columns; the transpose of a symmetric matrix is the matrix.
    factor, failed = spotrf(gram.T, lower=True, overwrite_a=True)
    inverse, singular = spotri(factor, lower=True, overwrite_c=True)
    if failed or singular:
        raise ValueError(f"the Gram matrix must be positive definite with l2 {l2} (got one that is not); raise l2")
    for row in range(len(inverse)):
        inverse[row, row + 1 :] = inverse[row + 1 :, row]
    return np.asarray(inverse, np.float32)
