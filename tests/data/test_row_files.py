"""Rows in files, and entries that stand for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from trainers.data.examples import Examples
from trainers.data.row_files import ChosenExamples, mapped

ROWS = Examples(
    inputs={"user_id_0": np.arange(6, dtype=np.int32), "user_dense": np.arange(12, dtype=np.float32).reshape(6, 2)},
    labels=np.arange(6, dtype=np.float32)[:, None],
)


def parts(*sizes: int) -> list[Examples]:
    """The rows in parts of these sizes."""
    ends = np.cumsum(sizes)
    return [ROWS.take(np.arange(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def test_mapped_rows_are_those_of_all_parts_in_order_and_leave_no_file(tmp_path: Path) -> None:
    found = mapped(iter(parts(3, 1, 2)), 6, tmp_path)
    for name, values in ROWS.inputs.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
        assert not found[name].flags.owndata
    assert list(tmp_path.iterdir()) == []


def test_mapped_rows_must_be_as_many_as_announced(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must have 6 rows together \(got 5\)"):
        mapped(parts(3, 2), 6, tmp_path)
    with pytest.raises(ValueError, match="no impressions; move the dataset's window"):
        mapped([], 0, tmp_path)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=30, deadline=None)
@given(
    order=npst.arrays(np.int64, st.integers(1, 9), elements=st.integers(0, 5)),
    data=st.data(),
)
def test_entries_read_the_rows_that_they_stand_for(order: np.ndarray, data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(order) - 1), max_size=5)), np.int64)
    chosen = ChosenExamples(inputs=ROWS.inputs, labels=ROWS.labels[order], order=order)
    expected = ROWS.take(order[rows])
    taken = chosen.take(rows)
    assert len(chosen) == len(order)
    np.testing.assert_array_equal(taken.labels, expected.labels)
    for name, tensor in chosen.tensors(rows).items():
        np.testing.assert_array_equal(taken.inputs[name], expected.inputs[name])
        np.testing.assert_array_equal(tensor.numpy(), expected.inputs[name])


def test_inputs_of_entries_lie_beside_those_of_rows() -> None:
    order = np.array([5, 0, 5])
    chosen = ChosenExamples(inputs=ROWS.inputs, labels=ROWS.labels[order], order=order)
    wider = chosen.with_inputs({"older": np.array([[1.0], [2.0], [3.0]], np.float32)})
    assert wider.take(np.array([2, 1])).inputs["older"].tolist() == [[3.0], [2.0]]
    assert wider.take(np.array([2, 1])).inputs["user_id_0"].tolist() == [5, 0]
    assert wider.with_labels([0]).tensors(np.array([0]))["older"].tolist() == [[1.0]]
