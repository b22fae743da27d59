"""What a request may ask of a ranking beyond its Pins: filters, bids, a cap per category, a moment.

Dims: B candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.encoding import Array

Mask = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.int64]
Per = Literal["click", "conversion"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Pins are kept by one of their features."""

    column: str
    """`view__feature` of Pins."""
    any_of: tuple[str | int, ...] | None
    """Values of which the Pin must have one; unchecked when not given."""
    none_of: tuple[str | int, ...]
    """Values that it must not have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bids:
    """What a click or a conversion is worth, by Pin."""

    per: Per
    of_pins: Mapping[int, float]
    otherwise: float
    """Bid of every other Pin."""

    def expected_value(self, pin_ids: Keys, pctr: Array, pcvr: Array | None) -> Array:
        """Bid times the probability of what it is for, float64 [B]."""
        bids = np.array([self.of_pins.get(pin, self.otherwise) for pin in pin_ids.tolist()], np.float64)
        value: Array = bids * pctr
        return value * pcvr if self.per == "conversion" and pcvr is not None else value


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """At most so many Pins of one category before the others had their turn."""

    column: str
    """`view__feature` of Pins that holds the category."""
    at_most: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What one request asks; the defaults ask for nothing."""

    filters: tuple[Filter, ...] = field(default=())
    bids: Bids | None = None
    spread: Spread | None = None
    moment: datetime | None = None
    """When the impression will be; the moment of the request when not given."""

    def columns(self) -> list[str]:
        """Columns of Pins that are looked at."""
        spread = [] if self.spread is None else [self.spread.column]
        return [*(each.column for each in self.filters), *spread]


PLAIN = Terms()


def kept_by(filters: Sequence[Filter], pins: pa.Table) -> Mask:
    """Which Pins all filters keep [B]; a Pin without a value has none of the values."""
    kept = np.ones(pins.num_rows, np.bool_)
    for each in filters:
        column = pins[each.column]
        if each.any_of is not None:
            kept &= _among(column, each.any_of)
        if each.none_of:
            kept &= ~_among(column, each.none_of)
    return kept


def spread_order(order: Keys, categories: pa.ChunkedArray, at_most: int) -> Keys:
    """The order in rounds: every category's best `at_most`, then its next ones, and so on; none is dropped.

    Args:
        order: Positions [B], best first.
        categories: Of each position; what has none is of a category of its own.
    """
    codes = np.asarray(pc.fill_null(categories.combine_chunks().dictionary_encode().indices, -1))[order]
    by_code = np.argsort(codes, kind="stable")
    ordered = codes[by_code]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, np.int64)
    place = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
    rounds = np.empty(len(codes), np.int64)
    rounds[by_code] = np.where(ordered < 0, 0, place // at_most)
    spread: Keys = order[np.argsort(rounds, kind="stable")]
    return spread


def _among(column: pa.ChunkedArray, values: Sequence[str | int]) -> Mask:
    """Where a value is one of those given; values of another type than the column's are none of its values."""
    kind = pa.string() if _is_text(column.type) else pa.int64()
    wanted = [value for value in values if isinstance(value, str) == (kind == pa.string())]
    if not wanted or pa.types.is_null(column.type):
        return np.zeros(len(column), np.bool_)
    found = pc.is_in(column.cast(kind), value_set=pa.array(wanted, kind), skip_nulls=True)
    return np.asarray(found.to_numpy(), dtype=np.bool_)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
