"""Training frames against a brute-force search, over random snapshots and rows."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from feast import FeatureStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.layout import apply, create_repo, open_store
from tests.feature_repo.repos import MANIFEST, START, activity_schema, attributes_schema, write_snapshot
from trainers.data.frames import point_in_time_frame

TTL = timedelta(hours=MANIFEST.activity_ttl_hours)
VIEWS = {
    "user_activity": ("user_id", "impressions_1d", activity_schema("user"), TTL),
    "pin_activity": ("pin_id", "impressions_1d", activity_schema("pin"), TTL),
    "pin_attributes": ("pin_id", "quality", attributes_schema(), None),
}
"""Join key, a feature, schema and TTL of the views behind the service `ranking`."""

KEYS = st.sampled_from([1, 2, None])
# Few moments, so that ties and exact TTL edges are common, and one microsecond to either side of them.
MOMENTS = st.builds(
    lambda hour, shift: START + timedelta(hours=hour, microseconds=shift),
    st.sampled_from([0, 1, 24, 48, 49, 72, 97]),
    st.sampled_from([-1, 0, 0, 0, 1]),
)
FEATURE_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "key": KEYS,
            "at": MOMENTS,
            "created": st.one_of(st.none(), MOMENTS),
            "value": st.sampled_from([None, 1, 2, 3]),
        }
    ),
    min_size=1,
    max_size=8,
)
FILES = st.lists(FEATURE_ROWS, min_size=1, max_size=3)
ENTITY_ROWS = st.lists(st.tuples(KEYS, KEYS, MOMENTS), max_size=8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    repo = tmp_path_factory.mktemp("oracle")
    create_repo(repo, MANIFEST)
    apply(repo)
    return open_store(repo)


def acceptable(files: list[list[dict[str, Any]]], key: int | None, at: datetime, ttl: timedelta | None) -> set[Any]:
    """Values that the newest usable row may have; several where rows tie in both timestamps."""
    usable = [row for rows in files for row in rows if row["key"] == key is not None and row["at"] <= at]
    usable = [row for row in usable if ttl is None or row["at"] >= at - ttl]
    if not usable:
        return {None}

    def order(row: dict[str, Any]) -> tuple[datetime, bool, datetime]:
        return row["at"], row["created"] is not None, row["created"] or START

    newest = max(map(order, usable))
    return {row["value"] for row in usable if order(row) == newest}


def write_view(repo: Path, view: str, files: list[list[dict[str, Any]]]) -> None:
    key, feature, schema, _ = VIEWS[view]
    shutil.rmtree(repo / "data" / "offline" / view, ignore_errors=True)
    for number, rows in enumerate(files):
        named = [
            {key: row["key"], feature: row["value"], "event_timestamp": row["at"], "created_timestamp": row["created"]}
            for row in rows
        ]
        write_snapshot(repo, view, f"part-{number}", schema, named)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    files=st.fixed_dictionaries({view: FILES for view in VIEWS}),
    rows=ENTITY_ROWS,
    zone=st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York"]),
    chunk_rows=st.sampled_from([2, 1000]),
)
def test_frame_holds_what_a_search_of_every_row_finds(
    store: FeatureStore,
    files: dict[str, list[list[dict[str, Any]]]],
    rows: list[tuple[int | None, int | None, datetime]],
    zone: str,
    chunk_rows: int,
) -> None:
    for view, parts in files.items():
        write_view(Path(store.config.repo_path), view, parts)
    given_rows = pa.table(
        {
            "user_id": pa.array([user for user, _, _ in rows], pa.int64()),
            "pin_id": pa.array([pin for _, pin, _ in rows], pa.int64()),
            "event_timestamp": pa.array([at for _, _, at in rows], pa.timestamp("us", tz=zone)),
            "click": pa.array(range(len(rows)), pa.int8()),
        }
    )
    frame = point_in_time_frame(store, given_rows, "ranking", chunk_rows=chunk_rows)
    assert frame.select(given_rows.column_names).equals(given_rows)
    for view, parts in files.items():
        key, feature, _, ttl = VIEWS[view]
        found = frame[f"{view}__{feature}"].to_pylist()
        keys = given_rows[key].to_pylist()
        for value, entity_key, (_, _, at) in zip(found, keys, rows, strict=True):
            assert value in acceptable(parts, entity_key, at, ttl)
