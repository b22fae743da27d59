"""Table of `make bench-push_latency`."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.figures.results import ResultRow
from tests.benchmarks.figures.tables import table

PUSH = "push_latency"
GOAL_MS = 1000.0
"""Within how long a pushed entity is to have its vectors, online and offline."""
BY_HTTP = "POST /v1/push"
EXPLANATION = (
    "One new user with one attribute, pushed into every embedding version in use: from the call until its vectors and "
    "its attribute are written online and offline. Calls one after the other, a first one left out of the quantiles."
)
HEADER = ("way", "dataset", "versions", "calls", "p50, ms", "p99, ms", "first, ms", "load average", "goal")


def push_sections(rows: Sequence[ResultRow]) -> list[str]:
    """Heading, explanation, table and origin of what was measured."""
    if not rows:
        return []
    origin = f'`make bench-push_latency ARGS="--run DIR"`, commit `{rows[0].commit}`, {rows[0].machine}.\n'
    return ["## Push\n", f"{EXPLANATION}\n", table(HEADER, map(_cells, rows)), origin]


def _cells(row: ResultRow) -> tuple[str, ...]:
    params = row.params
    p99_ms = float(params["p99_ms"])
    met = "met" if p99_ms <= GOAL_MS else "**missed**"
    return (
        f"`{params['way']}`" if params["way"] == BY_HTTP else str(params["way"]),
        str(params["dataset"]),
        f"{params['versions']} × {params['dim']}",
        f"{row.n or 0:,}",
        f"{row.ours:,.0f}",
        f"{p99_ms:,.0f}",
        f"{params['first_ms']:,.0f}",
        f"{params['load_average']}",
        f"p99 ≤ 1 s: {met}" if params["way"] == BY_HTTP else "",
    )
