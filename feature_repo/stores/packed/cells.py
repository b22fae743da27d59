"""What a packed store is asked for and what it answers: serialised values, and one of three states per row.

Dims: N entity keys, W bytes of one value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, overload, runtime_checkable

import numpy as np
import numpy.typing as npt
from feast import FeatureView, RepoConfig

from feature_repo.contract import MISSING, OUTSIDE_MAX_AGE, PRESENT
from feature_repo.stores.online.read_clock import ReadClock
from feature_repo.stores.packed.times import NO_TIME

IS_PRESENT, IS_MISSING, IS_OUTSIDE_MAX_AGE = 0, 1, 2
"""Codes of the three answers."""
STATUSES = (PRESENT, MISSING, OUTSIDE_MAX_AGE)
"""The answers by their codes."""
NO_CELL = -1
"""Length of a cell that the store does not have."""
_MICROSECOND = timedelta(microseconds=1)
_END_OF_TIME = int(np.iinfo(np.int64).max)
_FEW_ROWS = 16
"""Up to so many rows plain integers are faster than arrays."""

Integers = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]


class FixedWidthColumn(Sequence[bytes]):
    """Serialised values that all take the same number of bytes; they become objects only when they are looked at."""

    __slots__ = ("rows",)

    def __init__(self, rows: Bytes) -> None:
        self.rows = rows
        """The values [N, W], W at least 1."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[bytes]:
        joined, width = self.rows.tobytes(), self.rows.shape[1]
        return (joined[start : start + width] for start in range(0, len(joined), width))

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> FixedWidthColumn: ...
    def __getitem__(self, place: int | slice) -> bytes | FixedWidthColumn:
        return FixedWidthColumn(self.rows[place]) if isinstance(place, slice) else self.rows[place].tobytes()


class JoinedColumn(Sequence[bytes | None]):
    """Serialised values that lie in one string of bytes, as those of other columns do."""

    __slots__ = ("joined", "lengths", "starts")

    def __init__(self, joined: bytes, starts: Integers, lengths: Integers) -> None:
        self.joined = joined
        self.starts = starts
        """Where each value begins [N]."""
        self.lengths = lengths
        """How long it is [N]; `NO_CELL` where there is none."""

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[bytes | None]:
        joined, ends = self.joined, (self.starts + self.lengths).tolist()
        for start, end in zip(self.starts.tolist(), ends, strict=True):
            yield None if end < start else joined[start:end]

    @overload
    def __getitem__(self, place: int) -> bytes | None: ...
    @overload
    def __getitem__(self, place: slice) -> JoinedColumn: ...
    def __getitem__(self, place: int | slice) -> bytes | JoinedColumn | None:
        start, length = self.starts[place], self.lengths[place]
        if isinstance(place, slice):
            return JoinedColumn(self.joined, start, length)
        return None if length == NO_CELL else self.joined[int(start) : int(start + length)]


@dataclass(frozen=True, kw_only=True, slots=True)
class CellRequest:
    """Features of a view, asked for N entities."""

    view: FeatureView
    names: tuple[str, ...]
    """Features to read."""
    keys: Sequence[bytes]
    """Serialised entity keys, without what the store adds to them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """What a store holds for a request."""

    values: Sequence[Sequence[bytes | None]]
    """Per feature, N serialised `Value` messages; None where the store has none."""
    event_micros: Integers
    """Unix time of each row's event_timestamp; `NO_TIME` where there is no row."""


@runtime_checkable
class CellStore(Protocol):
    """A store from which serialised values can be read."""

    clock: ReadClock

    def read_cells(self, config: RepoConfig, requests: Sequence[CellRequest]) -> list[Cells]:
        """What the store holds for each request, in one round trip where the store has any.

        Raises:
            OnlineStoreUnavailableError: The store did not answer.
        """
        ...


def status_codes(event_micros: Integers, ttl: timedelta | None, now: int, *, stands: bool = False) -> Codes:
    """Answer for each row.

    Args:
        ttl: None or zero for rows that never age.
        now: Unix time in microseconds. A row that may only be used later is missing,
        stands: unless time stands still.
    """
    oldest = now - ttl // _MICROSECOND if ttl else NO_TIME + 1
    newest = _END_OF_TIME if stands else now
    if len(event_micros) <= _FEW_ROWS:
        return np.array([_status_code(moment, oldest, newest) for moment in event_micros.tolist()], np.int8)
    codes = np.full(len(event_micros), IS_PRESENT, np.int8)
    if event_micros.min() >= oldest and event_micros.max() <= newest:
        return codes
    codes[event_micros < oldest] = IS_OUTSIDE_MAX_AGE
    codes[(event_micros > newest) | (event_micros == NO_TIME)] = IS_MISSING
    return codes


def _status_code(moment: int, oldest: int, newest: int) -> int:
    if moment == NO_TIME or moment > newest:
        return IS_MISSING
    return IS_PRESENT if moment >= oldest else IS_OUTSIDE_MAX_AGE
