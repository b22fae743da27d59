"""Goals of `make bench-stores` and whether the figures meet them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.figures.results import ResultRow

_FLAT = 1.1
"""How much more memory ten times as many rows may take and still be called flat."""

Rows = Sequence[ResultRow]
Met = Callable[[ResultRow, Rows], bool | None]
"""Whether a row meets a goal; None where a figure that it takes was not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """A goal in words, and as a test of a row among all rows."""

    text: str
    met: Met


def ratio(row: ResultRow, column: str) -> float | None:
    """How many times as long as ours another way takes; for `raw` the other way round."""
    other = getattr(row, column)
    if not row.ours or not other:
        return None
    return float(row.ours / other if column == "raw" else other / row.ours)


def goals_of(row: ResultRow) -> list[Goal]:
    """Goals of a row; none for sizes that have none. What stock could not do, it is not compared in."""
    found = [goal for matches, goals in _GOALS if matches(row) for goal in goals]
    if not isinstance(row.params.get("stock"), str):
        return found
    return [_stock_does_not_finish() if "stock" in goal.text else goal for goal in found]


def _times_stock(factor: float) -> Goal:
    def met(row: ResultRow, rows: Rows) -> bool | None:
        del rows
        found = ratio(row, "stock")
        return None if found is None else found >= factor

    return Goal(text=f"≥ {factor:g}× stock" if factor != 1 else "no slower than stock", met=met)


def _times_raw(factor: float) -> Goal:
    def met(row: ResultRow, rows: Rows) -> bool | None:
        del rows
        found = ratio(row, "raw")
        return None if found is None else found <= factor

    return Goal(text=f"≤ {factor:g}× raw", met=met)


def _memory(gigabytes: float) -> Goal:
    def met(row: ResultRow, rows: Rows) -> bool | None:
        del rows
        return None if row.peak_mb is None else row.peak_mb <= gigabytes * 1024

    return Goal(text=f"≤ {gigabytes:g} GB", met=met)


def _flat() -> Goal:
    def met(row: ResultRow, rows: Rows) -> bool | None:
        smaller = [each for each in rows if _size(each) < _size(row) and _is_alike(each, row)]
        if row.peak_mb is None or not smaller:
            return None
        least = min(each.peak_mb or 0.0 for each in smaller)
        return row.peak_mb <= least * _FLAT

    return Goal(text="memory as with a tenth of the rows", met=met)


def _no_more_than_smaller() -> Goal:
    def met(row: ResultRow, rows: Rows) -> bool | None:
        smaller = [each for each in rows if 0 < _size(each) < _size(row) and _is_alike(each, row)]
        if row.peak_mb is None or not smaller:
            return None
        return row.peak_mb <= max(each.peak_mb or 0.0 for each in smaller) * _FLAT

    return Goal(text="memory no more than at 1 M rows", met=met)


def _stock_does_not_finish() -> Goal:
    def met(row: ResultRow, rows: Rows) -> bool | None:
        del rows
        return row.ours is not None and isinstance(row.params.get("stock"), str)

    return Goal(text="finishes where stock does not", met=met)


def _tail(factor: float) -> Goal:
    def met(row: ResultRow, rows: Rows) -> bool | None:
        median = next((each for each in rows if _is_median_of(each, row)), None)
        if row.ours is None or median is None or median.ours is None:
            return None
        return row.ours <= factor * median.ours

    return Goal(text=f"p99 ≤ {factor:g}× p50", met=met)


def _is_median_of(row: ResultRow, tail: ResultRow) -> bool:
    same = ("store", "pins", "columns", "repeats")
    alike = row.name == tail.name and all(row.params.get(key) == tail.params.get(key) for key in same)
    return alike and row.params.get("quantile") == "p50"


def _is_alike(row: ResultRow, other: ResultRow) -> bool:
    same = ("store", "dim", "days", "result")
    return row.name == other.name and all(row.params.get(key) == other.params.get(key) for key in same)


def _size(row: ResultRow) -> float:
    return float(row.params.get("rows", 0))


def _where(name: str, **params: str | int) -> Callable[[ResultRow], bool]:
    return lambda row: row.name == name and params.items() <= row.params.items()


_MILLION = 1_000_000
_GOALS: list[tuple[Callable[[ResultRow], bool], list[Goal]]] = [
    (_where("materialize", store="redis", rows=100_000), [_times_stock(7), _times_raw(1.3)]),
    (_where("materialize", store="redis", rows=_MILLION), [_times_stock(7), _times_raw(1.3), _memory(1)]),
    (_where("materialize", store="redis", rows=5 * _MILLION), [_memory(1), _no_more_than_smaller()]),
    (_where("materialize", store="sqlite"), [_times_stock(12)]),
    (_where("materialize", store="milvus"), [_times_stock(3)]),
    (_where("point_in_time", days=10, result="arrow"), [_times_raw(0.8), _times_stock(3), _memory(1.5)]),
    (_where("point_in_time", days=90), [_stock_does_not_finish(), _memory(2)]),
    (_where("point_in_time", result="parquet", rows=50 * _MILLION), [_flat()]),
    (_where("read_matrix", store="redis", pins=1000, quantile="p50"), [_times_raw(1.2), _times_stock(8)]),
    (_where("read_matrix", store="redis", pins=1000, quantile="p99"), [_tail(2)]),
    (_where("get_online_features", quantile="p50"), [_times_stock(1)]),
]
