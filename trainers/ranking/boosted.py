"""A LightGBM ranker on the inputs of the neural one: the second consumer of embeddings, and a strong base.

Source: Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017.
Dims: N rows, C columns, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
import numpy.typing as npt

from feature_repo.encoding import Array, InputSpec
from trainers.data.examples import Examples
from trainers.ranking.recipes import BoostedRecipe

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Rows as LightGBM reads them."""

    names: tuple[str, ...]
    """Name of each column."""
    categorical: tuple[int, ...]
    """Positions of those that hold categories."""
    values: Floats
    """[N, C]; NaN where a number or a vector is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Boosted:
    """A trained ranker."""

    booster: lightgbm.Booster
    num_leaves: int
    """Leaves of a tree, chosen on the validation rows."""
    rounds: int
    """Trees, chosen there too."""
    validation_log_loss: float

    def logits(self, columns: Columns) -> Floats:
        """Logits [N]."""
        found = self.booster.predict(columns.values, raw_score=True, num_iteration=self.rounds)
        return np.asarray(found, np.float32)


def columns_of(
    examples: Examples, sides: Sequence[InputSpec], pairs: Sequence[tuple[str, str]], max_categories: int
) -> Columns:
    """Numbers, categories, vectors and the inner products of pairs of vectors, side by side.

    Sequences are left out, and categories with more values than `max_categories`: trees would learn rows by heart.

    Args:
        sides: What the inputs of `examples` hold.
        pairs: Inputs of user and Pin with vectors of one space.
    """
    parts = [part for spec in sides for part in _side(examples.inputs, spec, max_categories)]
    parts += [_product(examples.inputs, *pair) for pair in pairs]
    starts = np.cumsum([0, *(part.values.shape[1] for part in parts)])
    categorical = [
        int(start) + i
        for start, part in zip(starts, parts, strict=False)
        if part.categorical
        for i in range(part.values.shape[1])
    ]
    return Columns(
        names=tuple(name for part in parts for name in part.names),
        categorical=tuple(categorical),
        values=np.concatenate([part.values for part in parts], axis=1, dtype=np.float32),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    names: list[str]
    values: Array
    categorical: bool = False


def _side(inputs: dict[str, Array], spec: InputSpec, max_categories: int) -> Iterator[_Part]:
    if spec.dense:
        values, missing = np.split(inputs[f"{spec.side}_dense"], 2, axis=1)
        yield _Part(names=[item.column for item in spec.dense], values=np.where(missing > 0.0, np.nan, values))
    few = [i for i, item in enumerate(spec.categorical) if item.size <= max_categories]
    if few:
        names = [spec.categorical[i].column for i in few]
        yield _Part(names=names, values=inputs[f"{spec.side}_categorical"][:, few], categorical=True)
    for i, multi in enumerate(spec.multi_valued):
        if multi.length != spec.list_length and len(multi.vocabulary) < max_categories:
            first = inputs[f"{spec.side}_multi_{i}"][:, :1]
            yield _Part(names=[f"{multi.column}[0]"], values=first, categorical=True)
    for i, vector in enumerate(spec.vectors):
        values = inputs[f"{spec.side}_vector_{i}"]
        names = [f"{vector.column}[{element}]" for element in range(vector.dim)]
        yield _Part(names=names, values=np.where(values[:, -1:] > 0.0, values[:, :-1], np.nan))


def _product(inputs: dict[str, Array], user: str, pin: str) -> _Part:
    both = (inputs[user][:, -1:] > 0.0) & (inputs[pin][:, -1:] > 0.0)
    product = (inputs[user][:, :-1] * inputs[pin][:, :-1]).sum(axis=1, keepdims=True)
    return _Part(names=[f"{user} · {pin}"], values=np.where(both, product, np.nan))


def train_boosted(
    train: tuple[Columns, Floats], validation: tuple[Columns, Floats], recipe: BoostedRecipe, seed: int
) -> Boosted:
    """The ranker with the least validation log loss over the recipe's tree sizes and over the number of trees.

    Args:
        train: Columns and labels [N] to learn from.
        validation: Later rows to choose by.
    """
    found = [_boosted(train, validation, recipe, num_leaves, seed) for num_leaves in recipe.num_leaves]
    return min(found, key=lambda each: each.validation_log_loss)


def _boosted(
    train: tuple[Columns, Floats], validation: tuple[Columns, Floats], recipe: BoostedRecipe, num_leaves: int, seed: int
) -> Boosted:
    parameters = {
        "objective": "binary",
        "metric": "binary_logloss",
        "num_leaves": num_leaves,
        "learning_rate": recipe.lr,
        "max_bin": recipe.max_bin,
        "min_data_in_leaf": recipe.min_rows_in_leaf,
        "feature_fraction": recipe.feature_fraction,
        "bagging_fraction": recipe.row_fraction,
        "bagging_freq": 1,
        "lambda_l2": recipe.l2,
        "cat_smooth": recipe.min_rows_in_leaf,
        "seed": seed,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    rows = lightgbm.Dataset(
        train[0].values, train[1], categorical_feature=list(train[0].categorical), params=parameters
    )
    later = rows.create_valid(validation[0].values, validation[1])
    stop = lightgbm.early_stopping(recipe.patience, verbose=False)
    booster = lightgbm.train(parameters, rows, recipe.max_rounds, valid_sets=[later], callbacks=[stop])
    loss = float(booster.best_score["valid_0"]["binary_logloss"])
    return Boosted(booster=booster, num_leaves=num_leaves, rounds=int(booster.best_iteration), validation_log_loss=loss)
