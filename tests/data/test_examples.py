"""Encoded rows in memory and the order in which a model sees them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.encoding import CategoricalInput, DenseInput, InputSpec
from trainers.data.examples import Examples, batches, concatenate, encode_sides, label_matrix


def examples(*labels: list[float]) -> Examples:
    """One row a label row; inputs count the rows."""
    rows = np.arange(len(labels))
    inputs = {"user_dense": rows[:, None].astype(np.float32), "pin_id_0": (10 + rows).astype(np.int32)}
    return Examples(inputs=inputs, labels=np.array(labels, np.float32))


THREE = examples([0.0, 1.0], [1.0, 0.0], [0.0, 0.0])


def test_take_keeps_inputs_and_labels_together() -> None:
    taken = THREE.take(np.array([2, 1]))
    assert len(taken) == 2
    assert taken.inputs["pin_id_0"].tolist() == [12, 11]
    assert taken.labels.tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_with_labels_selects_columns_in_the_given_order() -> None:
    assert THREE.with_labels([1, 0]).labels.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]


def test_with_inputs_replaces_and_adds() -> None:
    changed = THREE.with_inputs({"pin_id_0": np.zeros(3, np.int32), "more": np.ones(3, np.float32)})
    assert sorted(changed.inputs) == ["more", "pin_id_0", "user_dense"]
    assert changed.inputs["pin_id_0"].tolist() == [0, 0, 0]
    assert THREE.inputs["pin_id_0"].tolist() == [10, 11, 12]


def test_tensors_are_floats_and_long_indices_that_share_nothing() -> None:
    tensors = THREE.tensors(np.array([1, 0]))
    assert (tensors["user_dense"].dtype, tensors["pin_id_0"].dtype) == (torch.float32, torch.int64)
    tensors["user_dense"].zero_()
    assert THREE.inputs["user_dense"].tolist() == [[0.0], [1.0], [2.0]]


def test_label_matrix_has_nan_for_null() -> None:
    frame = pa.table({"click": pa.array([1, None, 0], pa.int8()), "buy": pa.array([None, 1, 0], pa.int8())})
    matrix = label_matrix(frame, ["buy", "click"])
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, [[np.nan, 1.0], [1.0, np.nan], [0.0, 0.0]])


def test_encode_sides_keeps_indices_compact() -> None:
    user = InputSpec(side="user", dense=(DenseInput(column="age", log=False, mean=0.0, scale=1.0),))
    context = InputSpec(side="context", categorical=(CategoricalInput(column="surface", vocabulary=("home",)),))
    inputs = encode_sides([user, context], pa.table({"age": [1.5], "surface": ["home"]}))
    assert inputs["user_dense"].tolist() == [[1.5, 0.0]]
    assert (inputs["context_categorical"].tolist(), inputs["context_categorical"].dtype) == ([[1]], np.int32)


def test_concatenate_keeps_the_order_of_parts() -> None:
    whole = concatenate([THREE.take(np.array([2])), THREE])
    assert whole.inputs["pin_id_0"].tolist() == [12, 10, 11, 12]
    assert whole.labels.shape == (4, 2)


def test_concatenate_says_that_there_are_no_impressions() -> None:
    with pytest.raises(ValueError, match="no impressions; move the dataset's window"):
        concatenate([])


@given(st.integers(0, 20), st.integers(1, 7), st.booleans())
def test_batches_hold_every_row_once(num_rows: int, size: int, shuffled: bool) -> None:
    rows = np.arange(100, 100 + num_rows)
    parts = list(batches(rows, size, np.random.default_rng(0) if shuffled else None))
    assert sorted(row for part in parts for row in part) == rows.tolist()
    assert all(len(part) == size for part in parts[:-1])
    if not shuffled:
        assert [row for part in parts for row in part] == rows.tolist()


def test_batches_follow_the_generator() -> None:
    first, again, other = (
        np.concatenate(list(batches(np.arange(50), 8, np.random.default_rng(seed)))).tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
