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
ROUTES = ("recommend", "rank", "features", "retrieve")
P99_MS, AT_RATE, OWN_SHARE, OVER_FEAST, OVER_FAISS, RECALL, EXPORTED = 25.0, 100.0, 0.2, 10.0, 1.2, 0.99, 1e-5
"""Goals."""
ROUTES_EXPLANATION = (
    "Each route alone, at a constant rate of arrivals from a process of its own; latency counts from when a request "
    "was due, and percentiles are of all requests. A route that does not keep the rate up is asked at the highest "
    "that it does. *Own* is the share of the server's time outside index, store and model; *CPU* is that of its "
    "processes for one request, while store and client take theirs on the same cores. *Highest rate* still has a 99th "
    "percentile of at most 50 ms, in steps of a quarter. Against `feast serve`, which reads the same store with "
    "Feast's own client, and faiss: the same read by both in turns, one request after the other; medians of five "
    "rounds."
)
ROUTES_HEADER = (
    "route", "corpus", "requests/s", "requests", "failed or degraded", "latency, ms: p50, p90, p99, p99.9, most", "own",
    "CPU, ms", "highest rate", "compared", "goal",
)  # fmt: skip
HEADER = (
    "load", "requests", "failed", "mixed", "first, s", "last, s: median, slowest",
    "latency, ms: p50, p90, p99, p99.9, most", "CPU, ms", "growth: MiB, handles", "goal",
)  # fmt: skip


def serving_sections(rows: Sequence[ResultRow], routes: Sequence[ResultRow] = ()) -> list[str]:
    """Headings, explanations, tables and origins of what was measured."""
    return [*(_promote(rows)), *(_routes(routes, heading=not rows))]


def _routes(rows: Sequence[ResultRow], *, heading: bool) -> list[str]:
    if not rows:
        return []
    origin = f"`make bench-serving`, commit `{rows[0].commit}`, {rows[0].machine}.\n"
    top = ["## Serving\n"] if heading else []
    return [*top, "### Routes\n", f"{ROUTES_EXPLANATION}\n", table(ROUTES_HEADER, map(_route_cells, rows)), origin]


def _route_cells(row: ResultRow) -> tuple[str, ...]:
    params = row.params
    corpus = f"{params['dataset']}, {params['corpus']:,} Pins × {params['dim']}, {params['store']}"
    return (
        f"`/v1/{row.name}`, {params['candidates']} Pins",
        corpus,
        f"{params['rate']:g}",
        f"{row.n or 0:,}",
        f"{params['failed'] + params['degraded']}",
        _latencies(row),
        f"{100 * float(params['own_share']):.0f} %" if "own_share" in params else "",
        _cpu(row),
        f"{params['highest_rate']:g}",
        _compared(row),
        _route_goal(row),
    )


def _compared(row: ResultRow) -> str:
    if row.stock is not None and row.ours:
        return f"feast serve {row.stock} ms, ours {row.ours} ms: {row.stock / row.ours:.1f}×"
    if row.raw and row.ours is not None:
        return f"faiss {row.raw} ms, ours {row.ours} ms: {row.ours / row.raw:.2f}×; recall {row.params['recall']}"
    return ""


def _route_goal(row: ResultRow) -> str:
    if row.name == "recommend":
        share = float(row.params.get("own_share", 1.0))
        soon = float(row.params["p99_ms"]) <= P99_MS and float(row.params["rate"]) >= AT_RATE
        goal = (
            f"p99 ≤ {P99_MS:g} ms at {AT_RATE:g} requests/s: {_met(soon)}; own share ≤ 20 %: {_met(share <= OWN_SHARE)}"
        )
        return goal + _export_goal(row.params.get("export_difference"))
    if row.stock is not None and row.ours:
        return f"≥ {OVER_FEAST:g}×: {_met(row.stock / row.ours >= OVER_FEAST)}"
    if row.raw and row.ours is not None:
        recalled = float(row.params["recall"]) >= RECALL
        return f"≤ {OVER_FAISS:g}×: {_met(row.ours / row.raw <= OVER_FAISS)}; recall ≥ {RECALL:g}: {_met(recalled)}"
    return ""


def _export_goal(difference: float | None) -> str:
    if difference is None:
        return ""
    return (
        f"; exported models within {EXPORTED:g} of the trained ones ({difference:.1e}): {_met(difference <= EXPORTED)}"
    )


def _promote(rows: Sequence[ResultRow]) -> list[str]:
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
        _latencies(row),
        _cpu(row),
        f"{params['resident_growth_mb']}, {params['handle_growth']}",
        f"0 failed, 0 mixed: {_met(params['failed'] == params['mixed'] == 0)}; last within {FOLLOWED_S:g} s: "
        f"{_met(float(params['slowest_s']) <= FOLLOWED_S)}",
    )


def _latencies(row: ResultRow) -> str:
    return ", ".join(str(row.params[f"{name}_ms"]) for name in ("p50", "p90", "p99", "p99.9", "max"))


def _cpu(row: ResultRow) -> str:
    """CPU of the server for one request; nothing in rows that were measured before it was."""
    return str(row.params.get("cpu_ms", ""))


def _met(met: bool) -> str:
    return "met" if met else "**missed**"
