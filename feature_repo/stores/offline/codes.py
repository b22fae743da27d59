"""Small numbers for join keys, learned from the rows of a source, so that keys can index an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from feature_repo.stores.offline.take import numbers, valid, whole

UNKNOWN = -1
"""Code of a null and of a key that the source has not."""

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Offsets:
    """Whole numbers that lie close together, by their distance from the smallest."""

    smallest: int
    size: int

    def __call__(self, values: pa.Array) -> Codes:
        # A difference beyond int64 wraps round, but never into the range of the codes.
        codes = numbers(values).astype(np.int64) - self.smallest
        is_known = (codes >= 0) & (codes < self.size) & (valid(values) if values.null_count else True)
        return codes if is_known.all() else np.where(is_known, codes, UNKNOWN)


@dataclass(frozen=True, slots=True)
class _Places:
    """Values by their place among those of the source."""

    values: pa.Array

    @property
    def size(self) -> int:
        return len(self.values)

    def __call__(self, values: pa.Array) -> Codes:
        places = pc.fill_null(pc.index_in(values, value_set=self.values), UNKNOWN)
        return np.asarray(places).astype(np.int64)


class KeyCodes:
    """Codes, below `size`, of keys of one or several columns; without a column all rows are alike."""

    def __init__(self, columns: Sequence[pa.ChunkedArray], num_rows: int, max_span: int) -> None:
        """Learn the keys.

        Args:
            columns: A column for each part of the keys, without nulls, for all of which `has_codes` is true.
            max_span: How far whole numbers may span to be codes as they are; those that span more are looked up.
        """
        self.size = 1
        self.learned: Codes = np.zeros(num_rows, np.int64)
        """Codes of these rows."""
        self._parts: list[tuple[_Offsets | _Places, _Offsets | _Places]] = []
        for column in columns:
            values = _plain(column)
            part = _learn(values, max_span)
            pairs = pa.array(_pairs(self.learned, part(values), part.size))
            joint = _learn(pairs, max_span) if self._parts else part
            self.learned, self.size = joint(pairs if self._parts else values), joint.size
            self._parts.append((part, joint))

    def __call__(self, columns: Sequence[pa.ChunkedArray], num_rows: int) -> Codes:
        """Codes of the keys of some rows."""
        codes: Codes = np.zeros(num_rows, np.int64)
        for i, (column, (part, joint)) in enumerate(zip(columns, self._parts, strict=True)):
            own = part(_plain(column))
            codes = joint(pa.array(_pairs(codes, own, part.size))) if i else own
        return codes


def has_codes(kind: pa.DataType) -> bool:
    """Whether keys of a type can have codes."""
    is_text = pt.is_string(kind) or pt.is_binary(kind)
    return bool(is_text or (pt.is_integer(kind) and kind != pa.uint64()))


def _learn(values: pa.Array, max_span: int) -> _Offsets | _Places:
    if pt.is_integer(values.type) and len(values):
        bounds = pc.min_max(values)
        smallest, size = bounds["min"].as_py(), bounds["max"].as_py() - bounds["min"].as_py() + 1
        if size <= max_span:
            return _Offsets(smallest, size)
    return _Places(pc.unique(values))


def _pairs(left: Codes, right: Codes, size: int) -> Codes:
    return np.where((left == UNKNOWN) | (right == UNKNOWN), UNKNOWN, left * size + right)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """Keys of one kind in its one type: whole numbers as int64, those beyond it null; text as strings."""
    values = whole(column)
    if pt.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.type == pa.uint64():
        is_small = pc.less_equal(values, pa.scalar(np.iinfo(np.int64).max, pa.uint64()))
        values = pc.if_else(is_small, values, None)
    if pt.is_integer(values.type):
        return values.cast(pa.int64())
    is_text = pt.is_string(values.type) or pt.is_large_string(values.type) or pt.is_string_view(values.type)
    return values.cast(pa.string() if is_text else pa.binary())
