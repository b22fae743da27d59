"""Training rows: entity rows with the newest features that could be used at their times, TTL applied."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.benchmarks.store_paths.made_data import ENTITIES, PINS, USERS
from tests.benchmarks.store_paths.plan import OURS, RAW, STOCK
from tests.benchmarks.store_paths.repos import PIN_VIEW, USER_VIEW, history_view, open_repo
from tests.benchmarks.store_paths.worker import Repetition, Setup, Way

FEATURES = ("embedding", "clicks", "rate")
_DAY_US = 86_400_000_000
_SOURCES = {USER_VIEW: ("user", USERS), PIN_VIEW: ("pin", PINS)}


class FeastJoin:
    """`get_historical_features` of a pandas frame to Arrow, or of a parquet file to a parquet file."""

    def __init__(self, variant: str, setup: Setup) -> None:
        self._setup = setup
        self._views = _view_names(setup)
        ttl_days = int(setup.params["ttl_days"])
        views = [
            history_view(name, entity, setup.data / file, ttl_days) for name, (entity, file) in self._views.items()
        ]
        self._store = open_repo(setup.folder / "repo", variant, views)
        self._features = [f"{view}:{name}" for view in self._views for name in FEATURES]
        self._to_file = setup.params["result"] == "parquet"
        entities = setup.data / ENTITIES
        self._entities: Any = str(entities) if self._to_file else pq.read_table(entities).to_pandas()

    def repeat(self, number: int) -> Repetition:
        """Join once; the file is read again for the answer."""
        del number
        began = time.perf_counter()
        job = self._store.get_historical_features(self._entities, self._features, full_feature_names=True)
        if not self._to_file:
            table = job.to_arrow()
            seconds = time.perf_counter() - began
            return Repetition(seconds=[seconds], answer=_answer(table, self._views))
        path = self._setup.folder / "joined.parquet"
        job.to_parquet(path)
        seconds = time.perf_counter() - began
        rows = pq.ParquetFile(path).metadata.num_rows
        path.unlink()
        return Repetition(seconds=[seconds], answer={"rows": float(rows)})


class AsofJoin:
    """DuckDB's `ASOF JOIN` that carries the vectors through the join."""

    def __init__(self, setup: Setup) -> None:
        self._connection = duckdb.connect(config={"temp_directory": str(setup.folder / "spill")})
        self._views = _view_names(setup)
        self._query = asof_query(setup.data, self._views, int(setup.params["ttl_days"]))

    def repeat(self, number: int) -> Repetition:
        """Join once."""
        del number
        began = time.perf_counter()
        table = self._connection.sql(self._query).to_arrow_table()
        seconds = time.perf_counter() - began
        return Repetition(seconds=[seconds], answer=_answer(table, self._views))


def asof_query(data: Path, views: dict[str, tuple[str, str]], ttl_days: int) -> str:
    """A query for all entity rows and features of the views."""
    entities, columns, joins = data / ENTITIES, ["e.*"], []
    for view, (entity, file) in views.items():
        age = f"epoch_us(e.event_timestamp) - epoch_us({view}.event_timestamp)"
        fresh = f"{age} <= {ttl_days * _DAY_US}"
        columns += [f"CASE WHEN {fresh} THEN {view}.{name} END AS {view}__{name}" for name in FEATURES]
        joins.append(
            f"ASOF LEFT JOIN read_parquet('{data / file}') {view} "
            f"ON e.{entity}_id = {view}.{entity}_id AND e.event_timestamp >= {view}.event_timestamp"
        )
    return f"SELECT {', '.join(columns)} FROM read_parquet('{entities}') e {' '.join(joins)}"


def _view_names(setup: Setup) -> dict[str, tuple[str, str]]:
    return {name: source for name, source in _SOURCES.items() if name == USER_VIEW or setup.params["pins"]}


def _answer(table: pa.Table, views: dict[str, tuple[str, str]]) -> dict[str, float]:
    figures = {"rows": float(table.num_rows)}
    for view in views:
        figures[f"{view} found"] = float(table.num_rows - table[f"{view}__embedding"].null_count)
        figures[f"{view} clicks"] = float(pc.sum(table[f"{view}__clicks"]).as_py() or 0)
    return figures


WAYS: dict[str, Callable[[Setup], Way]] = {
    OURS: partial(FeastJoin, OURS),
    STOCK: partial(FeastJoin, STOCK),
    RAW: AsofJoin,
}
