"""How often an entity's impressions got a label beyond what the surfaces they were on explain, as DuckDB queries.

Surfaces differ in their rates by far more than users or Pins do, so a plain rate says mostly where an entity was shown.
*Surface totals* are one row per entity and surface: `impressions` there, and `count_<label>` and `defined_<label>` as
in a tally. The totals of the next cut-off are those of the last one plus the new day's.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from feature_repo.contract import RepoManifest, join_key
from trainers.data.activity_counts import SMOOTHING
from trainers.data.activity_log import DailyLog, parquet_relation
from trainers.data.columns import IMPRESSIONS
from trainers.data.connection import quote


def surface_tally(log: DailyLog, manifest: RepoManifest, entity: str, *, start: datetime | None, end: datetime) -> str:
    """Query for the surface totals of start <= event_timestamp < end alone."""
    key = join_key(entity)
    read = {key: "BIGINT", "event_timestamp": "TIMESTAMPTZ", "surface": "VARCHAR"}
    labels = {label: "TINYINT" for label in manifest.surface_labels}
    events = log.events(IMPRESSIONS, read | labels, start=start, end=end)
    columns = ["count(*) AS impressions"]
    for label in manifest.surface_labels:
        columns.append(f"count(*) FILTER ({quote(label)} = 1) AS count_{label}")
        columns.append(f"count({quote(label)}) AS defined_{label}")
    return f"SELECT {key}, surface, {', '.join(columns)} FROM ({events}) GROUP BY {key}, surface"


def next_surface_totals(manifest: RepoManifest, entity: str, before: Path, day: str) -> str:
    """Query for surface totals one day later.

    Args:
        before: Surface totals of the day before.
        day: Query for those of the new day alone.
    """
    key = join_key(entity)
    sums = ", ".join(f"sum({name})::BIGINT AS {name}" for name in _summed(manifest))
    both = f"SELECT * FROM {parquet_relation(before)} UNION ALL BY NAME {day}"
    return f"SELECT {key}, surface, {sums} FROM ({both}) GROUP BY {key}, surface"


def excess_query(manifest: RepoManifest, entity: str, totals: Path) -> str:
    """Query over surface totals for `<label>_excess_ever` of every entity in them.

    (count − expected) / (impressions + 20), where `expected` is what the same impressions would have got at the rates
    that their surfaces had over all entities. It is 0 for an entity that does as its surfaces do.
    """
    key, relation = join_key(entity), parquet_relation(totals)
    rates = ", ".join(
        f"sum(count_{label}) / nullif(sum(defined_{label}), 0) AS rate_{label}" for label in manifest.surface_labels
    )
    found = ", ".join(
        f"coalesce(sum(count_{label} - defined_{label} * rate_{label}), 0.0) / (sum(defined_{label}) + {SMOOTHING}) "
        f"AS {label}_excess_ever"
        for label in manifest.surface_labels
    )
    surfaces = f"SELECT surface, {rates} FROM {relation} GROUP BY surface"
    return f"SELECT {key}, {found} FROM {relation} JOIN ({surfaces}) USING (surface) GROUP BY {key}"


def excess_columns(manifest: RepoManifest) -> Iterator[str]:
    """Select list over `excess_query` joined as `excess`; 0 for an entity without impressions."""
    for label in manifest.surface_labels:
        yield f"coalesce(excess.{label}_excess_ever, 0.0) AS {label}_excess_ever"


def _summed(manifest: RepoManifest) -> Iterator[str]:
    yield "impressions"
    for label in manifest.surface_labels:
        yield f"count_{label}"
        yield f"defined_{label}"
