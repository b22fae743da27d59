"""Matches by a grid of moments and keys, for sources whose rows share few moments, as daily snapshots do.

A cell names the newest row of its key at its moment or before, so that a match is two look-ups, where an `ASOF` join
sorts both sides. Dims: N rows of a source, T distinct moments, K distinct keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.stores.offline.codes import UNKNOWN, KeyCodes, has_codes
from feature_repo.stores.offline.gather import NO_MATCH
from feature_repo.stores.offline.snapshots import References
from feature_repo.stores.offline.take import numbers, whole

MAX_ROWS = 1 << 23
"""Sources with more rows are joined by DuckDB, which may spill."""
ROW_BYTES = 64
"""Memory that a row of a source takes at most while its grid is made."""

_MAX_MOMENTS = 1 << 12
_CELLS_PER_ROW = 4
_FEW_CELLS = 1 << 16
_EMPTY = -1


class Grid:
    """The newest row of every key at every moment of a source."""

    def __init__(self, keys: KeyCodes, moments: References, rows: npt.NDArray[np.int32], found: pa.Table) -> None:
        """Take over what `make_grid` found.

        Args:
            moments: Distinct times, sorted, [T].
            rows: Row of `found` of each moment and key, or less than 0, [T * K].
            found: `reference` and `t` of the rows.
        """
        self._keys, self._moments = keys, moments
        # What is not there is the last of all: a row before the first, `_EMPTY`, is the last too.
        self._rows = np.append(rows, np.int32(_EMPTY))
        self._references = np.append(_integers(found, "reference"), NO_MATCH)
        self._times = np.append(_integers(found, "t"), 0)

    def match(self, keys: Sequence[pa.ChunkedArray], times: References, ttl: int) -> References:
        """Reference of the newest row of each key at its time, if it is not older than a TTL, or `NO_MATCH`.

        Args:
            ttl: Microseconds; 0 for rows of any age.
        """
        codes = self._keys(keys, len(times))
        cells = np.searchsorted(self._moments, times, side="right") - 1
        is_unknown = (cells < 0) | (codes == UNKNOWN)
        cells *= self._keys.size
        cells += codes
        cells[is_unknown] = _EMPTY
        rows = self._rows[cells]
        found = self._references[rows]
        if ttl:
            found[times - self._times[rows] > ttl] = NO_MATCH
        return found


def make_grid(found: pa.Table, num_keys: int) -> Grid | None:
    """A grid of rows in any order; none if most of its cells would be empty, or if keys are neither whole numbers nor
    text nor bytes.

    Args:
        found: `reference`, keys `k0`…, time `t` and `created`; all but the keys are int64 without nulls.
    """
    names = [f"k{i}" for i in range(num_keys)]
    if any(found[name].null_count for name in names):
        found = found.drop_null()
    if not found.num_rows or not all(has_codes(found.schema.field(name).type) for name in names):
        return None
    moments = np.sort(numbers(pc.unique(found["t"]))).astype(np.int64, copy=False)
    if len(moments) > _MAX_MOMENTS:
        return None
    most_keys = max(_CELLS_PER_ROW * found.num_rows, _FEW_CELLS) // len(moments)
    keys = KeyCodes([found[name] for name in names], found.num_rows, most_keys)
    if keys.size > most_keys:
        return None
    return Grid(keys, moments, _newest(found, keys, moments), found)


def _integers(found: pa.Table, name: str) -> References:
    return numbers(whole(found[name])).astype(np.int64, copy=False)


def _newest(found: pa.Table, keys: KeyCodes, moments: References) -> npt.NDArray[np.int32]:
    """Row of each cell; of rows that tie the newest created, then the one with the highest reference."""
    cells = np.searchsorted(moments, _integers(found, "t")) * keys.size + keys.learned
    rows = np.full(len(moments) * keys.size, _EMPTY, np.int32)
    rows[cells] = np.arange(len(cells), dtype=np.int32)
    if np.count_nonzero(rows != _EMPTY) < len(cells):
        order = np.lexsort((_integers(found, "reference"), _integers(found, "created")))
        rows[cells[order]] = order.astype(np.int32)
    return _filled(rows.reshape(len(moments), keys.size)).reshape(-1)


def _filled(rows: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Empty cells with what the moment before has."""
    for earlier, later in pairwise(rows):
        np.copyto(later, earlier, where=later == _EMPTY)
    return rows
