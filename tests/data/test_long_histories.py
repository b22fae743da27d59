"""Long histories as inputs: names that follow the rankers' own, and values as of each row's moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.encoding import IdInput, InputSpec, hash_ids
from feature_repo.layout import apply, create_repo, open_store
from tests.data.small_repo import SmallRepo
from tests.feature_repo.repos import MANIFEST, START, write_all
from trainers.data.engaged_pairs import engaged_pairs
from trainers.data.event_log import EventLog
from trainers.data.long_histories import (
    history_ids,
    history_inputs,
    read_histories,
    users_with_histories,
    with_histories,
)

RECENT = IdInput(column="user_activity__recent_pins", buckets=64, length=3)
USER = with_histories(InputSpec(side="user", ids=(RECENT,)), MANIFEST, buckets=64, length=3)


def test_with_histories_adds_id_lists_behind_the_others() -> None:
    expected = IdInput(column="user_history_before__pin_ids", buckets=64, length=3)
    assert USER.ids == (RECENT, expected)
    assert history_ids(USER) == {"user_id_1": expected}


def test_with_histories_leaves_them_out_without_sequences_or_length() -> None:
    user = InputSpec(side="user", ids=(RECENT,))
    assert with_histories(user, MANIFEST, buckets=0, length=3) == user
    assert with_histories(user, MANIFEST, buckets=64, length=0) == user


def test_history_inputs_are_those_of_each_rows_moment(tmp_path: Path) -> None:
    create_repo(tmp_path, MANIFEST)
    write_all(tmp_path)
    apply(tmp_path)
    first = round(START.timestamp() * 1_000_000)
    found = history_inputs(open_store(tmp_path), USER, np.array([1, 1, 2]), np.array([first, first - 1, first]))
    assert list(found) == ["user_id_1"]
    assert found["user_id_1"].tolist() == [[*hash_ids(np.array([11, 10]), 64).tolist(), 0], [0, 0, 0], [0, 0, 0]]


def log_with_history(repo: SmallRepo, folder: Path, moments: dict[int, datetime]) -> EventLog:
    """The small repo's log with a history of each of these users from a moment on."""
    for part in repo.log.path.iterdir():
        (folder / part.name).symlink_to(part)
    (folder / "spec.json").unlink()
    (folder / "spec.json").write_text(repo.spec.model_copy(update={"histories": ("before",)}).model_dump_json())
    when = pa.array(list(moments.values()), pa.timestamp("us", tz="UTC"))
    history = {"user_id": list(moments), "event_timestamp": when, "pin_ids": [[1, 2]] * len(moments)}
    pq.write_table(pa.table(history), folder / "history_before.parquet")
    return EventLog(folder)


def test_users_with_histories_are_those_known_before_a_moment(small_repo: SmallRepo, tmp_path: Path) -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    log = log_with_history(small_repo, tmp_path, {7: now - timedelta(seconds=1), 8: now, 3: now - timedelta(days=1)})
    assert users_with_histories(log, now).tolist() == [3, 7]


def test_a_dataset_without_histories_has_none_to_read(small_repo: SmallRepo) -> None:
    window, user = small_repo.spec.window, small_repo.data.user
    found = read_histories(small_repo.log, small_repo.store, user, window.train_from)
    assert (found.inputs, len(found)) == ({}, 0)


def test_pairs_are_the_engaged_rows_with_the_bucket_of_their_pin(small_repo: SmallRepo) -> None:
    data = small_repo.data
    rows = np.arange(50)
    pairs = engaged_pairs(data, rows, 0, small_repo.store, data.user)
    engaged = rows[data.examples.labels[rows, 0] == 1.0]
    assert 0 < len(engaged) < 50
    assert pairs.pin_ids.tolist() == data.pin_ids[engaged].tolist()
    assert pairs.examples.inputs["pin_id_0"].tolist() == hash_ids(data.pin_ids[engaged], 256).tolist()
    assert "pin_id_0" not in data.examples.inputs


def test_pairs_before_a_moment_are_the_earlier_ones(small_repo: SmallRepo) -> None:
    pairs = engaged_pairs(small_repo.data, np.arange(50), 0, small_repo.store, small_repo.data.user)
    middle = int(np.sort(pairs.event_micros)[len(pairs.event_micros) // 2])
    earlier = pairs.before(datetime.fromtimestamp(middle / 1_000_000, UTC))
    assert earlier.event_micros.tolist() == [at for at in pairs.event_micros.tolist() if at < middle]
    assert len(earlier.examples) == len(earlier.user_ids) == len(earlier.pin_ids) == len(earlier.event_micros)
