"""Rows of Arrow arrays put into the places of a result, vectors as matrices and never value by value.

`pyarrow.compute.take` copies a list array about 25 times slower than numpy copies the same rows of its child buffer.
Dims: N rows of the result, W width of a vector.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Indices = npt.NDArray[np.int64] | npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

_BLOCK_BYTES = 1 << 20
"""Rows are copied in blocks of about this size, which stay in the processor's cache."""


class WidthError(ValueError):
    """A vector that is asked for has another width than its field declares."""


class Column:
    """One column of a result of N rows, filled from pages of files in any order and by any threads; null where nothing
    was put."""

    def __init__(self, kind: pa.DataType, num_rows: int) -> None:
        self._kind = kind
        self._num_rows = num_rows
        self._pieces: list[tuple[Indices, pa.Array]] = []

    def put(self, positions: Indices, page: pa.Array, rows: Indices) -> None:
        """Put rows of a page at some positions of the result, each position once."""
        self._pieces.append((positions, take(page, rows)))

    def finish(self) -> pa.Array:
        """The column."""
        index = np.full(self._num_rows, -1, np.int64)
        start = 0
        for positions, _ in self._pieces:
            index[positions] = np.arange(start, start + len(positions))
            start += len(positions)
        whole = pa.concat_arrays([*(values for _, values in self._pieces), pa.nulls(1, self._kind)])
        self._pieces.clear()
        index[index < 0] = start
        return take(whole, index)


class NumberColumn(Column):
    """A column of numbers or moments."""

    def __init__(self, kind: pa.DataType, num_rows: int) -> None:
        super().__init__(kind, num_rows)
        self._values = np.zeros(num_rows, _storage(kind))
        self._is_valid = np.zeros(num_rows, np.bool_)

    def put(self, positions: Indices, page: pa.Array, rows: Indices) -> None:
        """Put rows of a page at some positions of the result, each position once."""
        self._values[positions] = numbers(page)[rows]
        self._is_valid[positions] = valid(page)[rows] if page.null_count else True

    def finish(self) -> pa.Array:
        """The column."""
        return pa.array(self._values, mask=None if self._is_valid.all() else ~self._is_valid).view(self._kind)


class VectorColumn(Column):
    """A column of vectors: those of the first width as one [N, W] matrix, any others as lists."""

    def __init__(self, kind: pa.DataType, matched: Mask, width: int = 0) -> None:
        super().__init__(kind, len(matched))
        self._width = width
        # Only matched rows have a place in the matrix: lists that are null take no values.
        self._place = np.cumsum(matched, dtype=np.int32) - 1
        self._num_places = int(np.count_nonzero(matched))
        self._matrix: npt.NDArray[np.generic] | None = None
        self._is_valid = np.zeros(len(matched), np.bool_)
        self._lock = Lock()

    def put(self, positions: Indices, page: pa.Array, rows: Indices) -> None:
        """Put rows of a page at some positions of the result, each position once.

        Raises:
            WidthError: One of them is not of the declared width.
        """
        if page.null_count == len(page):
            return
        found = vectors(page)
        if self._width and (found is None or found[0].shape[1] != self._width):
            _check_widths(page, rows, self._width)
        target = None if found is None else self._matrix_like(found[0])
        if found is None or target is None:
            super().put(positions, page, rows)
            return
        matrix, starts = found
        if page.null_count:
            held = valid(page)[rows]
            positions, rows = positions[held], rows[held]
        self._is_valid[positions] = True
        _copy_rows(target, self._place[positions], matrix, starts[rows])

    def finish(self) -> pa.Array:
        """The column."""
        if self._matrix is None:
            return super().finish() if self._pieces else pa.nulls(self._num_rows, self._kind)
        if not self._pieces:
            return self._lists(self._matrix, self._is_valid)
        positions = np.flatnonzero(self._is_valid)
        kept = self._matrix[self._place[positions]]
        self._pieces.append((positions, self._lists(kept, np.ones(len(kept), np.bool_))))
        return super().finish()

    def _matrix_like(self, vectors: npt.NDArray[np.generic]) -> npt.NDArray[np.generic] | None:
        """The matrix, made for the first vectors; none for those of another width."""
        width = vectors.shape[1]
        with self._lock:
            if self._matrix is None:
                # Memory of Arrow's pool, which keeps it from block to block.
                flat = np.frombuffer(pa.allocate_buffer(self._num_places * width * vectors.itemsize), vectors.dtype)
                self._matrix = flat.reshape(self._num_places, width)
            return self._matrix if self._matrix.shape[1] == width else None

    def _lists(self, matrix: npt.NDArray[np.generic], is_valid: Mask) -> pa.Array:
        """Lists of the valid rows; `matrix` has a row for each place."""
        num_valid = int(np.count_nonzero(is_valid))
        if num_valid < len(matrix):
            matrix = matrix[self._place[is_valid]]
        offsets = np.zeros(len(is_valid) + 1, np.int32)
        np.cumsum(is_valid * matrix.shape[1], out=offsets[1:])
        values = pa.array(matrix.reshape(-1)).view(self._kind.value_type)
        mask = None if num_valid == len(is_valid) else pa.array(~is_valid)
        return pa.ListArray.from_arrays(pa.array(offsets), values, type=self._kind, mask=mask)


def _check_widths(page: pa.Array, rows: Indices, width: int) -> None:
    lengths = np.diff(np.asarray(page.offsets))[rows]
    odd = lengths[(lengths != width) & valid(page)[rows]]
    if len(odd):
        raise WidthError(f"{width} wide (got {odd[0]})")


def column_of(kind: pa.DataType, matched: Mask, width: int = 0) -> Column:
    """An empty column of a result, of which only `matched` rows will be put.

    Args:
        width: That vectors must have; 0 for any.
    """
    if _is_numeric(kind):
        return NumberColumn(kind, len(matched))
    if pa.types.is_list(kind) and _is_numeric(kind.value_type):
        return VectorColumn(kind, matched, width)
    return Column(kind, len(matched))


def take(array: pa.Array, rows: Indices) -> pa.Array:
    """Rows of an array; those of lists through the offsets of their items."""
    if not pa.types.is_list(array.type):
        return array.take(pa.array(rows))
    offsets = np.asarray(array.offsets).astype(np.int64)
    held = valid(array)[rows]
    starts = offsets[rows]
    lengths = np.where(held, offsets[rows + 1] - starts, 0)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    if bounds[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"rows of one batch must hold at most 2^31 items (got {bounds[-1]}); ask for smaller batches")
    items = np.repeat(starts - bounds[:-1], lengths) + np.arange(bounds[-1])
    mask = None if held.all() else pa.array(~held)
    return pa.ListArray.from_arrays(
        pa.array(bounds.astype(np.int32)), take(array.values, items), type=array.type, mask=mask
    )


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; a copy only if it is in several pieces."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def numbers(array: pa.Array) -> npt.NDArray[np.generic]:
    """Values of a numeric array without a copy; anything where it is null."""
    kind = array.type
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.zeros(len(array), _storage(kind))
    item = _storage(kind)
    return np.frombuffer(buffer, item, count=len(array), offset=array.offset * item.itemsize)


def valid(array: pa.Array) -> Mask:
    """Whether each value is there."""
    return np.ones(len(array), np.bool_) if not array.null_count else np.asarray(pc.is_valid(array))


def vectors(array: pa.Array) -> tuple[npt.NDArray[np.generic], Indices] | None:
    """A list array as a matrix and the row of it that each list is; none when it is not of one width."""
    offsets = np.asarray(array.offsets).astype(np.int64)
    lengths = np.diff(offsets)[valid(array)]
    if not len(lengths):
        return None
    width = int(lengths[0])
    items = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    starts = offsets[:-1] - offsets[0]
    if not width or items.null_count or (lengths != width).any() or len(items) % width or (starts % width).any():
        return None
    return numbers(items).reshape(-1, width), starts // width


def _copy_rows(
    target: npt.NDArray[np.generic], places: Indices, source: npt.NDArray[np.generic], rows: Indices
) -> None:
    # As one opaque value a row is copied in one piece, two to three times as fast as an array of numbers.
    row = np.dtype((np.void, source[:1].nbytes))
    step = max(_BLOCK_BYTES // row.itemsize, 1)
    targets, sources = target.view(row)[:, 0], source.view(row)[:, 0]
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        targets[places[part]] = sources[rows[part]]


def _is_numeric(kind: pa.DataType) -> bool:
    is_number = pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind)
    return bool(is_number or pa.types.is_timestamp(kind))


def _storage(kind: pa.DataType) -> np.dtype[np.generic]:
    return np.dtype(np.int64 if pa.types.is_timestamp(kind) else kind.to_pandas_dtype())
