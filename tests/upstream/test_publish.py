"""Daily embeddings to snapshots: what is in them and from when they may be used."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contract import EmbeddingVersion
from tests.data.tiny_log import TIME, at
from trainers.progress import SilentProgress
from trainers.upstream.publish import PublishPlan, publish, snapshot_file
from trainers.upstream.vector_files import vector_column
from trainers.upstream.walk import daily_file

VERSION = EmbeddingVersion(model="ctr", version=3, dim=2)


@pytest.fixture
def plan(tmp_path: Path) -> PublishPlan:
    """Two days of one user, and of one Pin that another joins."""
    plan = PublishPlan(
        version=VERSION,
        daily=tmp_path / "upstream",
        offline=tmp_path / "offline",
        cutoffs=[at(2), at(3)],
        publish_delay=timedelta(minutes=30),
        average_weight=0.8,
    )
    write(plan, "user", 2, {7: (1.0, 0.0)})
    write(plan, "user", 3, {7: (0.0, 1.0)})
    write(plan, "pin", 2, {10: (0.0, 2.0)})
    write(plan, "pin", 3, {10: (0.0, 1.0), 11: (1.0, 0.0)})
    return plan


def write(plan: PublishPlan, entity: str, day: int, vectors: dict[int, tuple[float, ...]]) -> None:
    """A file as the walk leaves it."""
    file = daily_file(plan.daily, entity, at(day))
    file.parent.mkdir(parents=True, exist_ok=True)
    matrix = np.array(list(vectors.values()), np.float32) if vectors else np.empty((0, 2), np.float32)
    pq.write_table(pa.table({f"{entity}_id": pa.array(vectors, pa.int64()), "embedding": vector_column(matrix)}), file)


def read(plan: PublishPlan, entity: str, day: int) -> pa.Table:
    """A snapshot."""
    return pq.ParquetFile(snapshot_file(plan, entity, at(day))).read()


def test_publish_counts_the_newest_snapshot(plan: PublishPlan) -> None:
    assert publish(plan, SilentProgress()) == {"user": 1, "pin": 2}


def test_publish_averages_inside_the_version(plan: PublishPlan) -> None:
    publish(plan, SilentProgress())
    assert read(plan, "user", 2)["embedding"].to_pylist() == [[1.0, 0.0]]
    (second,) = read(plan, "user", 3)["embedding"].to_pylist()
    assert second == pytest.approx([0.8 / 0.68**0.5, 0.2 / 0.68**0.5])
    pins = read(plan, "pin", 3)
    assert pins["pin_id"].to_pylist() == [10, 11]
    assert pins["embedding"].to_pylist() == [pytest.approx([0.0, 1.0]), [1.0, 0.0]]


def test_publish_stamps_a_snapshot_with_its_cutoff_and_the_moment_it_may_be_used(plan: PublishPlan) -> None:
    before = datetime.now(UTC)
    publish(plan, SilentProgress())
    table = read(plan, "pin", 3)
    assert table.schema.names == ["pin_id", "embedding", "data_cutoff", "event_timestamp", "created_timestamp"]
    assert {table.schema.field(name).type for name in table.schema.names[2:]} == {TIME}
    assert set(table["data_cutoff"].to_pylist()) == {at(3)}
    assert set(table["event_timestamp"].to_pylist()) == {at(3) + timedelta(minutes=30)}
    assert all(before <= written <= datetime.now(UTC) for written in table["created_timestamp"].to_pylist())
    assert snapshot_file(plan, "pin", at(3)).relative_to(plan.offline) == Path(
        "pin_embedding_ctr_v3/date=2024-01-03.parquet"
    )


def test_publish_again_gives_the_same_snapshots(plan: PublishPlan) -> None:
    publish(plan, SilentProgress())
    first = read(plan, "user", 3).drop_columns("created_timestamp")
    publish(plan, SilentProgress())
    assert read(plan, "user", 3).drop_columns("created_timestamp") == first
    assert sorted(file.name for file in (plan.offline / "user_embedding_ctr_v3").iterdir()) == [
        "date=2024-01-02.parquet",
        "date=2024-01-03.parquet",
    ]


def test_publish_takes_a_day_on_which_nobody_was_active(plan: PublishPlan) -> None:
    write(plan, "user", 3, {})
    assert publish(plan, SilentProgress())["user"] == 0
    assert read(plan, "user", 3).num_rows == 0


def test_publish_names_the_daily_file_that_is_missing(plan: PublishPlan) -> None:
    late = replace(plan, cutoffs=[at(2), at(3), at(4)])
    with pytest.raises(FileNotFoundError, match=r"user/date=2024-01-04.parquet must hold .*run `headwater train`"):
        publish(late, SilentProgress())


def test_publish_refuses_vectors_of_another_width(plan: PublishPlan) -> None:
    write(plan, "user", 3, {7: (0.0, 1.0, 0.0)})
    with pytest.raises(ValueError, match=r"date=2024-01-03.parquet must hold vectors of width 2 \(got \[3\]\)"):
        publish(plan, SilentProgress())
