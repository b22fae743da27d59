"""A logistic regression on the columns of the LightGBM ranker: on few and delayed labels a base that is hard to beat.

Dims: N rows, C columns, K columns of the design matrix.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from trainers.calibration import sigmoid
from trainers.metrics import log_loss
from trainers.ranking.boosted import Columns
from trainers.ranking.recipes import LogisticRecipe

Floats = npt.NDArray[np.float32]
MAX_VALUE = 5.0
"""Standardised numbers are cut to ± this: one outlier would decide a linear score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """How columns become a design matrix: standardised numbers, flags of what is missing, a column a category."""

    means: Floats
    scales: Floats
    categorical: tuple[int, ...]
    sizes: tuple[int, ...]
    """Categories of each categorical column that the training rows showed; later ones count as none."""

    @classmethod
    def fit(cls, columns: Columns) -> Design:
        """Moments and categories of the training rows."""
        values = columns.values
        known = ~np.isnan(values)
        counts = np.maximum(known.sum(axis=0), 1)
        means = np.where(known, values, 0.0).sum(axis=0) / counts
        variances = np.where(known, (values - means) ** 2, 0.0).sum(axis=0) / counts
        return cls(
            means=means.astype(np.float32),
            scales=np.maximum(np.sqrt(variances), 1e-3).astype(np.float32),
            categorical=columns.categorical,
            sizes=tuple(int(values[:, column].max(initial=0.0)) + 1 for column in columns.categorical),
        )

    def matrix(self, columns: Columns) -> sparse.csr_matrix:
        """The design matrix [N, K]."""
        numeric = [i for i in range(columns.values.shape[1]) if i not in self.categorical]
        values = columns.values[:, numeric]
        standard = (values - self.means[numeric]) / self.scales[numeric]
        missing = np.isnan(values)
        parts = [
            sparse.csr_matrix(np.where(missing, 0.0, standard.clip(-MAX_VALUE, MAX_VALUE)).astype(np.float32)),
            sparse.csr_matrix(missing.astype(np.float32)),
        ]
        sizes = zip(self.categorical, self.sizes, strict=True)
        parts += [_one_hot(columns.values[:, column].astype(np.int64), size) for column, size in sizes]
        return sparse.hstack(parts, format="csr", dtype=np.float32)


def _one_hot(indices: npt.NDArray[np.int64], size: int) -> sparse.csr_matrix:
    rows = np.flatnonzero(indices < size)
    ones = np.ones(len(rows), np.float32)
    return sparse.csr_matrix((ones, (rows, indices[rows])), shape=(len(indices), size))


@dataclass(frozen=True, kw_only=True, slots=True)
class Logistic:
    """A trained regression."""

    design: Design
    weights: npt.NDArray[np.float64]
    """[K]."""
    intercept: float
    inverse_l2: float
    """Chosen on the validation rows."""

    def logits(self, columns: Columns) -> Floats:
        """Logits [N]."""
        return np.asarray(self.design.matrix(columns) @ self.weights + self.intercept, np.float32)


def train_logistic(
    train: tuple[Columns, Floats], validation: tuple[Columns, Floats], recipe: LogisticRecipe
) -> Logistic:
    """The regression with the least validation log loss over the recipe's strengths of regularisation.

    Args:
        train: Columns and labels [N] to learn from.
        validation: Later rows to choose by.
    """
    design = Design.fit(train[0])
    fitted = map(partial(_fitted, design, design.matrix(train[0]), train[1], recipe), recipe.inverse_l2)
    return min(fitted, key=lambda each: log_loss(validation[1], sigmoid(each.logits(validation[0]))))


def _fitted(
    design: Design, matrix: sparse.csr_matrix, labels: Floats, recipe: LogisticRecipe, inverse_l2: float
) -> Logistic:
    model = LogisticRegression(C=inverse_l2, max_iter=recipe.max_iterations, tol=recipe.tolerance)
    with warnings.catch_warnings():
        # Stopping before the optimum regularises too, and the validation rows choose.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(matrix, labels)
    weights = np.asarray(model.coef_[0], np.float64)
    return Logistic(design=design, weights=weights, intercept=float(model.intercept_[0]), inverse_l2=inverse_l2)
