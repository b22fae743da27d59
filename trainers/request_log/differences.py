"""How two columns of the same rows differ: how many rows, and by how much.

Dims: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One feature, input or score, as it was served and as training has it."""

    name: str
    rows: int
    """Rows compared, N."""
    different: int
    """Rows whose value is another; includes the next two."""
    only_served: int
    """Rows with a value when served and none in training."""
    only_trained: int
    """Rows with a value in training and none when served."""
    max_absolute: float
    """Largest absolute difference of a number, or of an element of a list; 0 where nothing is a number."""
    mean_absolute: float
    """Mean over all rows of each row's largest one."""

    @property
    def share(self) -> float:
        """Share of the rows that differ; 0 without rows."""
        return self.different / self.rows if self.rows else 0.0


def compared(name: str, served: pa.ChunkedArray, trained: pa.ChunkedArray, tolerance: float = 0.0) -> Difference:
    """The difference of two columns; null and NaN are both no value.

    Args:
        tolerance: Absolute difference up to which numbers count as the same.
    """
    first, second = _one(served), _one(trained)
    has_first, has_second = _has_value(first), _has_value(second)
    both = has_first & has_second
    unequal, gaps = _gaps(first.filter(pa.array(both)), second.filter(pa.array(both)))
    differs = unequal | (gaps > tolerance)
    return Difference(
        name=name,
        rows=len(first),
        different=int(differs.sum() + (has_first != has_second).sum()),
        only_served=int((has_first & ~has_second).sum()),
        only_trained=int((has_second & ~has_first).sum()),
        max_absolute=float(gaps.max(initial=0.0)),
        mean_absolute=float(gaps.sum() / len(first)) if len(first) else 0.0,
    )


def compared_arrays(
    name: str, served: npt.NDArray[Any], trained: npt.NDArray[Any], tolerance: float = 0.0
) -> Difference:
    """The difference of two arrays [N, …], row by row."""
    gaps = np.abs(served.astype(np.float64) - trained.astype(np.float64)).reshape(len(served), -1)
    largest = gaps.max(axis=1, initial=0.0)
    return Difference(
        name=name,
        rows=len(served),
        different=int((largest > tolerance).sum()),
        only_served=0,
        only_trained=0,
        max_absolute=float(largest.max(initial=0.0)),
        mean_absolute=float(largest.mean()) if len(largest) else 0.0,
    )


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _has_value(array: pa.Array) -> Mask:
    known = np.asarray(pc.is_valid(array))
    if pa.types.is_floating(array.type):
        known &= ~np.isnan(np.asarray(pc.fill_null(array, float("nan"))))
    return known


def _gaps(first: pa.Array, second: pa.Array) -> tuple[Mask, Floats]:
    """Per row: whether the values differ other than by a number, and by how much the numbers do."""
    none = np.zeros(len(first), np.bool_), np.zeros(len(first))
    if not len(first):
        return none
    if pa.types.is_list(first.type) or pa.types.is_large_list(first.type):
        return _list_gaps(first, second)
    if _is_number(first.type) and _is_number(second.type):
        return none[0], np.abs(_numbers(first) - _numbers(second))
    unequal = pc.not_equal(first, pc.cast(second, first.type))
    return np.asarray(pc.fill_null(unequal, True)), none[1]


def _list_gaps(first: pa.Array, second: pa.Array) -> tuple[Mask, Floats]:
    lengths = [np.asarray(pc.list_value_length(each)) for each in (first, second)]
    unequal = lengths[0] != lengths[1]
    same = pa.array(~unequal)
    rows = np.repeat(np.flatnonzero(~unequal), lengths[0][~unequal])
    flat = [pc.list_flatten(each.filter(same)) for each in (first, second)]
    gaps = np.zeros(len(first))
    if _is_number(flat[0].type) and _is_number(flat[1].type):
        np.maximum.at(gaps, rows, np.abs(_numbers(flat[0]) - _numbers(flat[1])))
    elif len(rows):
        others = np.asarray(pc.fill_null(pc.not_equal(flat[0], pc.cast(flat[1], flat[0].type)), True))
        unequal[rows[others]] = True
    return unequal, gaps


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def _numbers(array: pa.Array) -> Floats:
    found = np.asarray(pc.cast(array, pa.float64(), safe=False), dtype=np.float64)
    return np.nan_to_num(found)
