"""What `make bench-stores` measures: cases, each of several ways to do the same work, and the rows they give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

OURS, STOCK, RAW = "ours", "stock", "raw"
NAMES = ("materialize", "point_in_time", "get_online_features", "read_matrix")
"""Names of rows."""
SCALARS = 5
"""Features of a row of Pins beside its vector."""
CALLS = 2_000
"""Online reads of which quantiles are taken."""
QUANTILES = (0.5, 0.99)
POPULATION = 100_000
"""Pins that online reads draw from."""

Params = Mapping[str, str | int | float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Rows of one name that a case gives."""

    name: str
    variants: Mapping[str, str]
    """Way of each column of figures: `ours`, `stock` and `raw`, where there is one."""
    params: Params


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Work that is done in several ways in turn, each in a process of its own."""

    path: str
    """Module that holds the ways."""
    params: Params
    """Sizes, which the ways are given."""
    variants: tuple[str, ...]
    rows: tuple[Wanted, ...]
    num_rows: int
    """Rows that one repetition works on."""
    quantiles: bool = False
    """Whether a repetition is many calls, of which quantiles are shown, and not one that is timed whole."""

    @property
    def code(self) -> tuple[str, ...]:
        """Folders, from the project's root, whose code it measures."""
        parts = {
            "point_in_time": ("offline",),
            "materialize": ("offline", "engine", "online", "packed", str(self.params["store"])),
            "online": ("online", "packed", str(self.params["store"])),
        }
        return (*(f"feature_repo/stores/{part}" for part in parts[self.path]), "tests/benchmarks/store_paths")

    @property
    def title(self) -> str:
        """The case in one line."""
        return f"{self.rows[0].name} {', '.join(f'{name}={value}' for name, value in self.params.items())}"

    def answers(self, names: frozenset[str]) -> bool:
        """Whether the case gives rows of one of these names."""
        return any(row.name in names for row in self.rows)


def cases(scale: float) -> list[Case]:
    """All cases, with numbers of rows, of entities and of calls multiplied by `scale`."""
    return [*_materialize(scale), *_point_in_time(scale), *_online(scale)]


def scaled(size: int, scale: float) -> int:
    """A size that is never zero."""
    return max(1, math.ceil(size * scale))


def _materialize(scale: float) -> Iterator[Case]:
    for store in ("redis", "sqlite", "milvus"):
        for rows, dim in ((100_000, 128), (1_000_000, 64)):
            yield _materialized(store, scaled(rows, scale), dim, (OURS, STOCK, RAW))
        if store == "redis":
            yield _materialized(store, scaled(5_000_000, scale), 64, (OURS,))


def _materialized(store: str, rows: int, dim: int, variants: tuple[str, ...]) -> Case:
    params: dict[str, str | int | float] = {"store": store, "rows": rows, "dim": dim, "scalars": SCALARS}
    return _timed("materialize", "materialize", params, variants, rows)


def _timed(path: str, name: str, params: Params, variants: tuple[str, ...], num_rows: int) -> Case:
    wanted = Wanted(name=name, variants={each: each for each in variants}, params=params)
    return Case(path=path, params=params, variants=variants, rows=(wanted,), num_rows=num_rows)


def _point_in_time(scale: float) -> Iterator[Case]:
    rows = scaled(1_000_000, scale)
    for ttl_days in (2, 10):
        params = _history(users=100_000, pins=100_000, days=10, ttl_days=ttl_days, dim=64, scale=scale)
        yield _joined({"rows": rows, **params, "result": "arrow"}, (OURS, STOCK, RAW))
    long = _history(users=20_000, pins=0, days=90, ttl_days=90, dim=64, scale=scale)
    yield _joined({"rows": rows, **long, "result": "arrow"}, (OURS, STOCK, RAW))
    for size in (5_000_000, 50_000_000):
        narrow = _history(users=100_000, pins=100_000, days=10, ttl_days=2, dim=16, scale=scale)
        yield _joined({"rows": scaled(size, scale), **narrow, "result": "parquet"}, (OURS,))


def _history(*, users: int, pins: int, days: int, ttl_days: int, dim: int, scale: float) -> dict[str, int]:
    pins_scaled = scaled(pins, scale) if pins else 0
    return {"users": scaled(users, scale), "pins": pins_scaled, "days": days, "ttl_days": ttl_days, "dim": dim}


def _joined(params: dict[str, str | int | float], variants: tuple[str, ...]) -> Case:
    return _timed("point_in_time", "point_in_time", {"store": "duckdb", **params}, variants, int(params["rows"]))


def _online(scale: float) -> Iterator[Case]:
    for store in ("redis", "sqlite"):
        for pins in (1, 100, 1000):
            yield _read(store, min(pins, scaled(POPULATION, scale)), scale)


def _read(store: str, pins: int, scale: float) -> Case:
    params: dict[str, str | int | float] = {"store": store, "pins": pins, "dim": 128, "scalars": SCALARS}
    columns = {"vector": ("read_matrix", "stock_vector", "raw_vector"), "all": ("read_all", STOCK, "raw_all")}
    rows = [
        Wanted(
            name="read_matrix",
            variants=dict(zip((OURS, STOCK, RAW), ways, strict=True)),
            params={**params, "columns": name},
        )
        for name, ways in columns.items()
    ]
    features = Wanted(
        name="get_online_features",
        variants={OURS: "get_online_features", STOCK: STOCK, RAW: "raw_all"},
        params=params,
    )
    return Case(
        path="online",
        params={**params, "calls": scaled(CALLS, scale), "population": scaled(POPULATION, scale)},
        variants=("read_matrix", "stock_vector", "raw_vector", "read_all", "get_online_features", STOCK, "raw_all"),
        rows=(*rows, features),
        num_rows=scaled(CALLS, scale),
        quantiles=True,
    )
