"""Counts, smoothed rates and recency of an entity, as DuckDB queries.

A *tally* is one row per entity over some interval: `impressions`; `count_<label>` positives of every label and
conversion kind; `defined_<label>` impressions on which the label is not null; `last_<label>` and `last_impression`,
the newest moments; `last_activity`, the newest of all.

*Totals* are the tally of all time with the sums over each window beside it, `<column>_<W>d`. The totals of the next
cut-off are those of the last one, plus the new day's tally, less the tally of the day that leaves each window: one
day's work, and exact, because these are integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from feature_repo.contract import RepoManifest, join_key, label_columns
from trainers.data.activity_log import DailyLog, parquet_relation
from trainers.data.columns import CONVERSIONS, IMPRESSIONS
from trainers.data.connection import literal, moment, quote

SMOOTHING = 20.0
"""Impressions at the global rate that every rate starts from, the `a` of (count + a * prior) / (impressions + a)."""


def tally(log: DailyLog, manifest: RepoManifest, entity: str, *, start: datetime | None, end: datetime) -> str:
    """Query for the tally of start <= event_timestamp < end, conversions by their own moment of arrival."""
    key = join_key(entity)
    common = {key: "BIGINT", "event_timestamp": "TIMESTAMPTZ"}
    labels = {label: "TINYINT" for label in manifest.labels}
    source = f"SELECT *, NULL::VARCHAR AS kind FROM ({log.events(IMPRESSIONS, common | labels, start=start, end=end)})"
    if manifest.conversions:
        kinds = ", ".join(map(literal, manifest.conversions))
        arrived = log.events(CONVERSIONS, common | {"kind": "VARCHAR"}, start=start, end=end)
        source += f" UNION ALL BY NAME SELECT * FROM ({arrived}) WHERE kind IN ({kinds})"
    return f"SELECT {key}, {', '.join(_tally_columns(manifest))} FROM ({source}) GROUP BY {key}"


def _tally_columns(manifest: RepoManifest) -> Iterator[str]:
    yield "count(*) FILTER (kind IS NULL) AS impressions"
    yield "max(event_timestamp) FILTER (kind IS NULL) AS last_impression"
    yield "max(event_timestamp) AS last_activity"
    for label in manifest.labels:
        column = quote(label)
        yield f"count(*) FILTER ({column} = 1) AS count_{label}"
        yield f"count({column}) AS defined_{label}"
        yield f"max(event_timestamp) FILTER ({column} = 1) AS last_{label}"
    for kind in manifest.conversions:
        yield f"count(*) FILTER (kind = {literal(kind)}) AS count_{kind}"
        yield f"max(event_timestamp) FILTER (kind = {literal(kind)}) AS last_{kind}"


def first_totals(manifest: RepoManifest, entity: str, before: str, daily: Sequence[Path]) -> str:
    """Query for totals from all of history.

    Args:
        before: Query for the tally of everything older than the longest window.
        daily: Tallies of each day of the longest window, newest first.
    """
    key, parts = join_key(entity), [f"SELECT * FROM ({before})"]
    for age, path in enumerate(daily):
        inside = [
            f"{name} AS {name}_{days}d" for days in manifest.windows_days if days > age for name in _summed(manifest)
        ]
        parts.append(f"SELECT {', '.join(['*', *inside])} FROM {parquet_relation(path)}")
    sums = [f"coalesce(sum({name}), 0)::BIGINT AS {name}" for name in _windowed(manifest)]
    newest = [f"max({name}) AS {name}" for name in _newest(manifest)]
    return f"SELECT {key}, {', '.join(sums + newest)} FROM ({' UNION ALL BY NAME '.join(parts)}) GROUP BY {key}"


def next_totals(manifest: RepoManifest, entity: str, before: Path, entered: Path, left: Mapping[int, Path]) -> str:
    """Query for totals one day later; joins, because summing again costs three times as much.

    Args:
        before: Totals of the day before.
        entered: Tally of the new day.
        left: By window, in days, the tally of the day that is no longer inside.
    """
    key, sums = join_key(entity), _summed(manifest)
    columns = [f"coalesce(before.{name}, 0) + coalesce(entered.{name}, 0) AS {name}" for name in sums]
    for days in left:
        columns += [
            f"coalesce(before.{name}_{days}d, 0) + coalesce(entered.{name}, 0) - coalesce(left_{days}d.{name}, 0) "
            f"AS {name}_{days}d"
            for name in sums
        ]
    columns += [f"greatest(before.{name}, entered.{name}) AS {name}" for name in _newest(manifest)]
    joins = f"{parquet_relation(before)} AS before FULL JOIN {parquet_relation(entered)} AS entered USING ({key})"
    for days, path in left.items():
        joins += f" LEFT JOIN {parquet_relation(path)} AS left_{days}d USING ({key})"
    return f"SELECT {key}, {', '.join(columns)} FROM {joins}"


def totals_columns(manifest: RepoManifest) -> list[str]:
    """Columns of totals after the join key."""
    return [*_windowed(manifest), *_newest(manifest)]


def _windowed(manifest: RepoManifest) -> list[str]:
    suffixes = ("", *(f"_{days}d" for days in manifest.windows_days))
    return [f"{name}{suffix}" for suffix in suffixes for name in _summed(manifest)]


def _summed(manifest: RepoManifest) -> list[str]:
    counts = [f"count_{label}" for label in label_columns(manifest)]
    return ["impressions", *counts, *(f"defined_{label}" for label in manifest.labels)]


def _newest(manifest: RepoManifest) -> list[str]:
    return ["last_impression", "last_activity", *(f"last_{label}" for label in label_columns(manifest))]


def priors(manifest: RepoManifest, relation: str) -> str:
    """Query over totals for `prior_<label>`: the global rate up to the cut-off, 0 where nothing is known yet."""
    rates = [
        f"coalesce(sum(count_{label}) / nullif(sum({_denominator(manifest, label)}), 0), 0.0) AS prior_{label}"
        for label in label_columns(manifest)
    ]
    return f"SELECT {', '.join(rates)} FROM {relation}"


def feature_columns(manifest: RepoManifest, cutoff: datetime) -> Iterator[str]:
    """Select list of counts, rates and recency over `totals` and `priors`, in the contract's order."""
    for days in manifest.windows_days:
        yield from _counts_and_rates(manifest, suffix=f"{days}d", column_suffix=f"_{days}d")
    yield from _counts_and_rates(manifest, suffix="ever", column_suffix="")
    yield f"{_hours_since(cutoff, 'last_impression')} AS hours_since_impression"
    for label in label_columns(manifest):
        yield f"{_hours_since(cutoff, f'last_{label}')} AS hours_since_{label}"


def _counts_and_rates(manifest: RepoManifest, *, suffix: str, column_suffix: str) -> Iterator[str]:
    yield f"impressions{column_suffix} AS impressions_{suffix}"
    for label in label_columns(manifest):
        count = f"count_{label}{column_suffix}"
        shown = f"{_denominator(manifest, label)}{column_suffix}"
        yield f"{count} AS {label}_{suffix}"
        yield f"({count} + {SMOOTHING} * prior_{label}) / ({shown} + {SMOOTHING}) AS {label}_rate_{suffix}"


def _denominator(manifest: RepoManifest, label: str) -> str:
    return f"defined_{label}" if label in manifest.labels else "impressions"


def _hours_since(cutoff: datetime, column: str) -> str:
    return f"(epoch_us({moment(cutoff)}) - epoch_us({column})) / 3600000000.0"
