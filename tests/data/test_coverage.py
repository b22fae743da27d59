"""Present, missing and outside max age, counted on impressions."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contract import EmbeddingVersion, RepoManifest
from tests.data.tiny_log import TIME, at
from trainers.data.coverage import coverage_rows

VERSION = EmbeddingVersion(model="ctr", version=1, dim=2, ttl_hours=24)
MANIFEST = RepoManifest(
    dataset="tiny",
    labels=("click",),
    conversions=(),
    windows_days=(1,),
    sequence_length=3,
    user_attributes=(),
    pin_attributes=(),
    embeddings=(VERSION,),
)


def write(folder: Path, entity: str, day: int, keys: list[int]) -> None:
    """A snapshot that may be used from the start of a day."""
    view = folder / f"{entity}_embedding_ctr_v1"
    view.mkdir(exist_ok=True)
    stamps = pa.array([at(day)] * len(keys), TIME)
    pq.write_table(pa.table({f"{entity}_id": keys, "event_timestamp": stamps}), view / f"date=2024-01-{day:02}.parquet")


def micros(*moments: object) -> np.ndarray:
    """Moments as integers."""
    return np.array([round(moment.timestamp() * 1e6) for moment in moments])  # type: ignore[attr-defined]


def test_coverage_tells_the_three_answers_apart(tmp_path: Path) -> None:
    write(tmp_path, "user", 2, [1, 2])
    write(tmp_path, "user", 4, [1])
    write(tmp_path, "pin", 2, [10])
    users, pins = np.array([1, 1, 2, 2, 3]), np.full(5, 10)
    # User 1: before any, 6 hours old; user 2: exactly at max age, past it; user 3: never.
    when = micros(at(1, 23), at(4, 6), at(3), at(3) + timedelta(microseconds=1), at(4))
    user, pin = coverage_rows(tmp_path, MANIFEST, users, pins, when)
    assert (user.present, user.outside_max_age, user.missing) == (0.4, 0.2, 0.4)
    assert user.median_age_hours == pytest.approx(15.0)
    assert (user.view, user.entity, user.n_rows, user.num_vectors) == ("user_embedding_ctr_v1", "user", 5, 1)
    assert (pin.present, pin.outside_max_age, pin.missing) == (0.2, 0.6, 0.2)


def test_coverage_of_no_impressions_has_no_age(tmp_path: Path) -> None:
    write(tmp_path, "user", 2, [1])
    write(tmp_path, "pin", 2, [10])
    none = np.empty(0, np.int64)
    user, _ = coverage_rows(tmp_path, MANIFEST, none, none, none)
    assert (user.n_rows, user.median_age_hours, user.num_vectors) == (0, None, 1)
