"""Tables of `make bench-stores`: our stores, Feast's own and the raw clients side by side, with the goals."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.figures.results import ResultRow
from tests.benchmarks.figures.store_goals import goals_of, ratio
from tests.benchmarks.figures.tables import table

TITLES = {
    "materialize": "Materialize",
    "point_in_time": "Point-in-time join",
    "read_matrix": "Direct online read",
    "get_online_features": "`get_online_features`",
}
EXPLANATIONS = {
    "materialize": (
        "`FeatureStore.materialize` of a parquet file with a vector and five scalars per Pin into an empty store. Raw: "
        "bytes made ready beforehand, by a pipelined `HSET` (redis-py, hiredis), `executemany` into Feast's table, or "
        "`MilvusClient.insert`."
    ),
    "point_in_time": (
        "`get_historical_features`: entity rows with users' vectors of a day each (and three days of Pins'), two "
        "scalars beside each vector. Raw: DuckDB's `ASOF JOIN` over the same files, carrying the vectors."
    ),
    "read_matrix": (
        "`vector`: `read_matrix` against a pipelined `HMGET` (SQLite: one query) of vector and time and "
        "`numpy.frombuffer`; `all`: vector and five scalars, those of the raw client left as bytes. Stock: "
        "`get_online_features(...).to_dict()` of the same features. Other Pins in every call, all of them present."
    ),
    "get_online_features": (
        "`get_online_features(...).to_dict()` of a vector and five scalars, on our store and on Feast's, over the same "
        "rows. Raw: as above, `all`."
    ),
}
_HIDDEN = {"repeats", "scalars", "quantile"}
HEADER = (
    "what", "ours", "stock", "raw", "stock / ours", "ours / raw", "spread, ours", "peak MiB: ours, stock, raw", "goal",
)  # fmt: skip


def store_sections(rows: Sequence[ResultRow]) -> list[str]:
    """A heading, an explanation and a table for every kind of row that was measured."""
    parts = []
    for name, title in TITLES.items():
        some = [row for row in rows if row.name == name]
        if some:
            parts += [f"### {title}\n", f"{EXPLANATIONS[name]}\n"]
            parts.append(table(HEADER, [_cells(row, rows) for row in some]))
            parts.append(f"{_origins(some)}\n")
    return parts


def _cells(row: ResultRow, rows: Sequence[ResultRow]) -> tuple[str, ...]:
    return (
        _what(row),
        *(_figure(row, column) for column in ("ours", "stock", "raw")),
        *(_ratio_text(row, column) for column in ("stock", "raw")),
        "" if row.spread is None else _number(row.spread),
        _peaks(row),
        _goals_text(row, rows),
    )


def _what(row: ResultRow) -> str:
    shown = {key: value for key, value in row.params.items() if key not in _HIDDEN and not _is_about_others(key)}
    words = [f"{key} {value:,}" if isinstance(value, int) else f"{value}" for key, value in shown.items()]
    quantile = row.params.get("quantile")
    return ", ".join([*words, *([str(quantile)] if quantile else [])])


def _is_about_others(key: str) -> bool:
    return key.partition("_")[0] in ("stock", "raw")


def _figure(row: ResultRow, column: str) -> str:
    value = getattr(row, column)
    if value is not None:
        return f"{_number(value)} {row.unit}"
    return str(row.params.get(column, ""))


def _number(value: float) -> str:
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def _ratio_text(row: ResultRow, column: str) -> str:
    found = ratio(row, column)
    return "" if found is None else f"{found:.2f}"


def _peaks(row: ResultRow) -> str:
    others = [row.params.get(f"{column}_peak_mb") for column in ("stock", "raw")]
    shown = [row.peak_mb, *(value if isinstance(value, float | int) else None for value in others)]
    return ", ".join("–" if value is None else f"{value:,.0f}" for value in shown)


def _goals_text(row: ResultRow, rows: Sequence[ResultRow]) -> str:
    words = {True: "met", False: "**missed**", None: "not measured"}
    return "; ".join(f"{goal.text}: {words[goal.met(row, rows)]}" for goal in goals_of(row))


def _origins(rows: Sequence[ResultRow]) -> str:
    """Command, repetitions, commits and machines of some rows."""
    repeats = sorted({str(row.params.get("repeats")) for row in rows})
    commits = ", ".join(f"`{commit}`" for commit in dict.fromkeys(row.commit for row in rows))
    machines = "; ".join(dict.fromkeys(row.machine for row in rows))
    return (
        f"`python -m tests.benchmarks.stores --only {rows[0].name}`, {', '.join(repeats)} repetitions, "
        f"commit {commits}, {machines}."
    )
