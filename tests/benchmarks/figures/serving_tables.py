"""Tables of `make bench-serving`."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.figures.results import ResultRow
from tests.benchmarks.figures.tables import table

PROMOTE = "promote_under_load"
FOLLOWED_S = 1.0
"""Within how long every process is to answer from the release that was made live."""
EXPLANATION = (
    "`headwater serve` answers `/v1/recommend` and `/v1/rank` in turns, asked at a constant rate by a process of its "
    "own, while releases of two embedding versions are promoted and rolled back in turns, two seconds apart. Each "
    "answer is compared byte by byte with what each release answers alone: one that neither gives is *mixed*. "
    "*First* is from the begin of the transaction to the first answer of the new release, *last* to the sending of "
    "the last request that any process answered from the old one; latency counts from when a request was due. Growth "
    "is that of one process after the fourth change."
)
HEADER = (
    "load", "requests", "failed", "mixed", "first, s", "last, s: median, slowest", "latency, ms: p50, p99",
    "growth: MiB, handles", "goal",
)  # fmt: skip


def serving_sections(rows: Sequence[ResultRow]) -> list[str]:
    """Heading, explanation, table and origin."""
    if not rows:
        return []
    origin = f"`make bench-serving`, commit `{rows[0].commit}`, {rows[0].machine}.\n"
    return ["## Serving\n", "### Promote under load\n", f"{EXPLANATION}\n", table(HEADER, map(_cells, rows)), origin]


def _cells(row: ResultRow) -> tuple[str, ...]:
    params = row.params
    load = f"{params['rate']:g} requests/s, {params['candidates']} candidates, {params['corpus']:,} Pins × "
    load += f"{params['dim']}, {params['workers']} processes, {params['changes']} changes"
    return (
        load,
        f"{row.n or 0:,}",
        str(params["failed"]),
        str(params["mixed"]),
        f"{params['first_s']}",
        f"{row.ours}, {params['slowest_s']}",
        f"{params['p50_ms']}, {params['p99_ms']}",
        f"{params['resident_growth_mb']}, {params['handle_growth']}",
        f"0 failed, 0 mixed: {_met(params['failed'] == params['mixed'] == 0)}; last within {FOLLOWED_S:g} s: "
        f"{_met(float(params['slowest_s']) <= FOLLOWED_S)}",
    )


def _met(met: bool) -> str:
    return "met" if met else "**missed**"
