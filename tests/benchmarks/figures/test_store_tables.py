"""Goals and tables of the stores' benchmark, on figures that are invented."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.document import benchmarks_text
from tests.benchmarks.figures.results import ResultRow, Results
from tests.benchmarks.figures.store_goals import goals_of, ratio
from tests.benchmarks.figures.store_tables import store_sections

REDIS = {"store": "redis", "rows": 1_000_000, "dim": 64, "repeats": 5}
LONG = {"store": "duckdb", "rows": 1_000_000, "days": 90, "result": "arrow", "repeats": 5}


def row(name: str = "materialize", params: dict[str, object] | None = None, **figures: object) -> ResultRow:
    whole = {"name": name, "params": params or REDIS, "unit": "s", "machine": "invented", "commit": "0123"} | figures
    return ResultRow.model_validate(whole)


def verdicts(of: ResultRow, *others: ResultRow) -> dict[str, bool | None]:
    return {goal.text: goal.met(of, [of, *others]) for goal in goals_of(of)}


def test_ratios_are_stock_over_ours_and_ours_over_raw() -> None:
    measured = row(ours=4.0, stock=30.0, raw=2.0)
    assert (ratio(measured, "stock"), ratio(measured, "raw")) == (7.5, 2.0)
    assert ratio(row(ours=4.0), "stock") is None


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"ours": 10.0, "stock": 70.0, "raw": 8.0, "peak_mb": 1024.0}, (True, True, True)),
        ({"ours": 10.1, "stock": 70.0, "raw": 7.7, "peak_mb": 1024.1}, (False, False, False)),
        ({"ours": 10.0}, (None, None, None)),
    ],
)
def test_goals_of_materialize_compare_with_stock_raw_and_memory(
    figures: dict[str, Any], expected: tuple[bool | None, ...]
) -> None:
    assert verdicts(row(**figures)) == dict(zip(("≥ 7× stock", "≤ 1.3× raw", "≤ 1 GB"), expected, strict=True))


def test_memory_at_five_million_rows_is_compared_with_one_million() -> None:
    params = REDIS | {"rows": 5_000_000}
    expected = "memory no more than at 1 M rows"
    small = row(ours=1.0, peak_mb=500.0)
    assert verdicts(row(params=params, ours=5.0, peak_mb=550.0), small)[expected] is True
    assert verdicts(row(params=params, ours=5.0, peak_mb=551.0), small)[expected] is False
    assert verdicts(row(params=params, ours=5.0, peak_mb=550.0))[expected] is None


def test_memory_of_fifty_million_entity_rows_is_that_of_five() -> None:
    params = {"store": "duckdb", "days": 10, "dim": 16, "result": "parquet"}
    rows = [
        row("point_in_time", params | {"rows": size}, ours=1.0, peak_mb=peak)
        for size, peak in ((50_000_000, 990.0), (5_000_000, 900.0))
    ]
    assert verdicts(*rows) == {"memory as with a tenth of the rows": True}


def test_long_history_counts_when_stock_was_stopped() -> None:
    stopped = row("point_in_time", LONG | {"stock": "killed at 12 GB"}, ours=3.0, peak_mb=1900.0)
    finished = row("point_in_time", LONG, ours=3.0, stock=40.0, peak_mb=2100.0)
    assert verdicts(stopped) == {"finishes where stock does not": True, "≤ 2 GB": True}
    assert verdicts(finished) == {"finishes where stock does not": False, "≤ 2 GB": False}


def test_stock_that_fails_at_a_size_is_not_compared_with() -> None:
    failed = row("materialize", {"store": "milvus", "stock": "fails: message larger than max"}, ours=3.0, raw=2.0)
    assert verdicts(failed) == {"finishes where stock does not": True}
    assert verdicts(row("materialize", {"store": "milvus"}, ours=3.0, stock=6.0)) == {"≥ 3× stock": False}


def test_tail_is_compared_with_the_median_of_the_same_read() -> None:
    params = {"store": "redis", "pins": 1000, "columns": "vector", "repeats": 5}
    tail = row("read_matrix", params | {"quantile": "p99"}, ours=11.0)
    median = row("read_matrix", params | {"quantile": "p50"}, ours=5.5)
    other = row("read_matrix", params | {"quantile": "p50", "columns": "all"}, ours=1.0)
    assert verdicts(tail, other, median) == {"p99 ≤ 2× p50": True}
    assert verdicts(tail, other) == {"p99 ≤ 2× p50": None}


def test_table_shows_figures_ratios_peaks_and_goals() -> None:
    others = {"stock_spread": 1.0, "stock_peak_mb": 9100.0, "raw_spread": 0.1, "raw_peak_mb": 430.0}
    measured = row(params=REDIS | others, ours=12.5, stock=100.0, raw=10.0, spread=0.25, peak_mb=700.0)
    text = "\n".join(store_sections([measured]))
    figures = "| redis, rows 1,000,000, dim 64 | 12.5 s | 100 s | 10 s | 8.00 | 1.25 | 0.25 | 700, 9,100, 430 |"
    assert f"{figures} ≥ 7× stock: met; ≤ 1.3× raw: met; ≤ 1 GB: met |" in text
    assert "`python -m tests.benchmarks.stores --only materialize`, 5 repetitions, commit `0123`, invented." in text


def test_table_says_at_what_stock_was_stopped() -> None:
    stopped = row("point_in_time", LONG | {"stock": "killed at 12 GB"}, ours=3.0, peak_mb=1900.0)
    assert "| 3 s | killed at 12 GB |  |  |  |  | 1,900, –, – |" in "\n".join(store_sections([stopped]))


def test_document_has_a_section_for_each_kind_of_row_that_was_measured() -> None:
    text = benchmarks_text(Results(rows=(row(ours=1.0),)))
    assert "## Stores" in text
    assert "### Materialize" in text
    assert "### Point-in-time join" not in text
