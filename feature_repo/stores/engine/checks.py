"""What must hold of a view's rows before the first of them is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView, Field
from feast.types import Array, Float32, Float64

_FLOATS = (Float32, Float64, Array(Float32), Array(Float64))

REBUILD = "rebuild its snapshot and run again"


class InvalidRowsError(ValueError):
    """A row of a feature view must not be served."""


def vector_widths(view: FeatureView) -> dict[str, int]:
    """Width of every field that is declared as a vector: by `vector_length`, or by a tag `dim`."""
    widths = {field.name: _width(field) for field in view.features}
    return {name: width for name, width in widths.items() if width}


def required_vectors(view: FeatureView) -> set[str]:
    """Vector fields that every row must have: those that can be searched by."""
    return {field.name for field in view.features if field.vector_index}


def finite_fields(view: FeatureView) -> list[str]:
    """Numbers and lists of numbers that packed stores take only if they are finite, vectors aside."""
    vectors = vector_widths(view)
    return [field.name for field in view.features if field.dtype in _FLOATS and field.name not in vectors]


def check_finite(view: FeatureView, keys: Sequence[str], table: pa.Table, names: Sequence[str]) -> None:
    """Refuse infinite numbers, and NaN inside lists; a number that is NaN counts as null.

    Raises:
        InvalidRowsError: With the view, the key of the first such row and the field.
    """
    with _advising(REBUILD):
        for name in names:
            _check_finite(view, keys, table, name)


def _check_finite(view: FeatureView, keys: Sequence[str], table: pa.Table, name: str) -> None:
    column = table[name]
    if pa.types.is_floating(column.type):
        bad = pc.fill_null(pc.is_inf(column), False)
        _refuse(view, keys, table, bad, f"{name} must be finite", column)
        return
    is_finite = pc.is_finite(pc.list_flatten(column))
    if pc.all(is_finite, skip_nulls=True).as_py() is False:
        rows = np.asarray(pc.list_parent_indices(column.combine_chunks()))
        mask = np.zeros(table.num_rows, np.bool_)
        mask[rows[~np.asarray(pc.fill_null(is_finite, True))]] = True
        _refuse(view, keys, table, pa.array(mask), f"elements of {name} must be finite")


def check_rows(view: FeatureView, keys: Sequence[str], table: pa.Table, remedy: str = REBUILD) -> None:
    """Refuse null keys, and vectors that are null, of another width or not finite.

    A vector may be null where the view only declares its width, as for attributes that not every Pin has.

    Raises:
        InvalidRowsError: With the view, the key of the first such row and what is wrong with it.
    """
    with _advising(remedy):
        for key in keys:
            _refuse(view, keys, table, pc.is_null(table[key]), f"join key {key} must not be null (got null)")
        required = required_vectors(view)
        for name, width in vector_widths(view).items():
            _check_vector(view, keys, table, name, width, name in required)


@contextmanager
def _advising(remedy: str) -> Iterator[None]:
    try:
        yield
    except InvalidRowsError as error:
        raise InvalidRowsError(f"{error}; {remedy}") from None


def _width(field: Field) -> int:
    declared = field.vector_length or field.tags.get("dim", "0")
    return int(declared)


def _check_vector(
    view: FeatureView, keys: Sequence[str], table: pa.Table, name: str, width: int, is_required: bool
) -> None:
    column = table[name]
    if is_required:
        _refuse(view, keys, table, pc.is_null(column), f"{name} must be a vector {width} wide (got null)")
    lengths = pc.list_value_length(column)
    other = pc.fill_null(pc.not_equal(lengths, width), False)
    _refuse(view, keys, table, other, f"{name} must be {width} wide", lengths)
    # Every vector has the same width from here on, so its elements lie at fixed places.
    elements = pc.list_flatten(column)
    bad = pc.invert(pc.fill_null(pc.is_finite(elements), False))
    if pc.any(bad).as_py():
        present = np.flatnonzero(np.asarray(pc.is_valid(column)))
        mask = np.zeros(table.num_rows, np.bool_)
        mask[present[np.flatnonzero(np.asarray(bad)) // width]] = True
        _refuse(view, keys, table, pa.array(mask), f"{name} must hold finite numbers (got null, NaN or infinite ones)")


def _refuse(
    view: FeatureView,
    keys: Sequence[str],
    table: pa.Table,
    bad: pa.ChunkedArray | pa.Array,
    reason: str,
    found: pa.ChunkedArray | None = None,
) -> None:
    rows = np.flatnonzero(np.asarray(bad))
    if not len(rows):
        return
    first = int(rows[0])
    key = ", ".join(f"{name}={table[name][first].as_py()!r}" for name in keys)
    value = "" if found is None else f" (got {found[first].as_py()})"
    others = f", and {len(rows) - 1} more rows near it" if len(rows) > 1 else ""
    raise InvalidRowsError(f"feature view {view.name}, {key}: {reason}{value}{others}")
