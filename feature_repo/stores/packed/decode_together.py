"""Columns of a view decoded at once: a call per kind of number instead of several per feature.

A ranker reads a hundred features of five hundred Pins, or of one user: what each call costs adds up.

Dims: C columns, N rows, K cells that hold a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from feast import ValueType

from feature_repo.stores.packed.cells import FixedWidthColumn, JoinedColumn
from feature_repo.stores.packed.decode import Mask, Stored, decode_column
from feature_repo.stores.packed.decode_few import FEW_ROWS, few_scalars
from feature_repo.stores.packed.encode import DOUBLE_TAG, FLOAT_TAG, VARINT_TAGS
from feature_repo.stores.packed.varints import decode_varints

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

_FLOATS = {ValueType.FLOAT: (FLOAT_TAG, "<f4"), ValueType.DOUBLE: (DOUBLE_TAG, "<f8")}
FEW_COLUMNS = 32
"""Up to so many columns of a few rows are decoded value by value."""
_TOGETHER = {*_FLOATS, *VARINT_TAGS} - {ValueType.UNIX_TIMESTAMP}


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnType:
    """How a feature is stored and handed out."""

    kind: ValueType
    """Declared type."""
    arrow: pa.DataType | None
    """From `decode.arrow_type`."""


def decode_columns(columns: Sequence[Stored], types: Sequence[ColumnType], wanted: Mask) -> list[pa.Array]:
    """An array of N per column, as `decode_column` gives it."""
    if len(wanted) <= FEW_ROWS and len(columns) <= FEW_COLUMNS:
        return [_few(values, each, wanted) for values, each in zip(columns, types, strict=True)]
    found: dict[int, pa.Array] = {}
    for kind in _TOGETHER.intersection(each.kind for each in types):
        places = [
            place
            for place, (values, each) in enumerate(zip(columns, types, strict=True))
            if each.kind == kind and not isinstance(values, FixedWidthColumn)
        ]
        numbers = _numbers([columns[place] for place in places], kind, wanted) if len(places) > 1 else None
        if numbers is not None:
            arrays = zip(places, *numbers, strict=True)
            found |= {place: _array(row, held, types[place].arrow) for place, row, held in arrays}
    return [
        found[place] if place in found else decode_column(values, each.kind, each.arrow, wanted)
        for place, (values, each) in enumerate(zip(columns, types, strict=True))
    ]


def _few(values: Stored, each: ColumnType, wanted: Mask) -> pa.Array:
    found = few_scalars(values, each.kind, each.arrow, wanted)
    return decode_column(values, each.kind, each.arrow, wanted) if found is None else found


def _numbers(columns: Sequence[Stored], kind: ValueType, wanted: Mask) -> tuple[npt.NDArray[Any], Mask] | None:
    """Numbers and which cells hold one, both [C, N]; None where a message is not laid out as that of its kind."""
    joined, starts, lengths = _joined(columns)
    held = lengths > 0
    if not wanted.all():
        held &= np.tile(wanted, len(columns))
    starts, lengths = starts[held], lengths[held]
    found = _floats(joined, starts, lengths, kind) if kind in _FLOATS else _integers(joined, starts, lengths, kind)
    if found is None:
        return None
    numbers = np.zeros(len(held), found.dtype)
    numbers[held] = found
    return numbers.reshape(len(columns), -1), held.reshape(len(columns), -1)


def _joined(columns: Sequence[Stored]) -> tuple[Bytes, Integers, Integers]:
    """All cells in one array, where each begins and how long it is, both [C * N]; without a value that is 0 or less."""
    if shared := _shared(columns):
        starts, lengths = (np.concatenate([getattr(each, name) for each in shared]) for name in ("starts", "lengths"))
        return np.frombuffer(shared[0].joined, np.uint8), starts, lengths
    cells: list[Any] = list(chain.from_iterable(columns))
    if None in cells:
        cells = [cell or b"" for cell in cells]
    lengths = np.fromiter(map(len, cells), np.int64, len(cells))
    return np.frombuffer(b"".join(cells), np.uint8), np.cumsum(lengths) - lengths, lengths


def _shared(columns: Sequence[Stored]) -> list[JoinedColumn]:
    """The columns, if all lie in one string of bytes; else none."""
    found = [column for column in columns if isinstance(column, JoinedColumn)]
    one = len(found) == len(columns) and all(column.joined is found[0].joined for column in found)
    return found if one else []


def _floats(joined: Bytes, starts: Integers, lengths: Integers, kind: ValueType) -> npt.NDArray[Any] | None:
    """Numbers [K]."""
    tag, dtype = _FLOATS[kind]
    width = np.dtype(dtype).itemsize + 1
    if not ((lengths == width).all() and (joined[starts] == tag[0]).all()):
        return None
    return np.ascontiguousarray(joined[starts[:, None] + np.arange(1, width)]).view(dtype).ravel()


def _integers(joined: Bytes, starts: Integers, lengths: Integers, kind: ValueType) -> npt.NDArray[Any] | None:
    """Numbers [K]."""
    if not (joined[starts] == VARINT_TAGS[kind][0]).all():
        return None
    return decode_varints(joined, starts + 1, lengths - 1)


def _array(numbers: npt.NDArray[Any], held: Mask, arrow: pa.DataType | None) -> pa.Array:
    if numbers.dtype.kind == "f":
        # Feast's materialize goes through pandas, which turns a null number into NaN.
        held = held & ~np.isnan(numbers)
    found = pa.array(numbers, mask=None if held.all() else ~held)
    return found if arrow is None or found.type == arrow else found.cast(arrow)
