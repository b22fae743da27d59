"""Pushed vectors on real stores: what they are, where they can be read, and in which order they win."""

from __future__ import annotations

import itertools
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore

from feature_repo.push import writer
from feature_repo.push.pusher import Pusher
from feature_repo.stores.packed.reader import PackedReader
from tests.feature_repo.push.pushed_repo import USABLE, at, pusher_of, rows_of

USERS, PINS = "user_embedding_ctr_v1", "pin_embedding_ctr_v1"


def online(store: FeatureStore, view: str, key: int) -> dict[str, Any]:
    """What Feast itself answers for one entity."""
    entity = view.partition("_")[0]
    features = [f"{view}:embedding", f"{view}:data_cutoff"]
    found = store.get_online_features(features, [{f"{entity}_id": key}]).to_dict()
    return {name: values[0] for name, values in found.items()}


def offline(store: FeatureStore, view: str, key: int, moment: datetime) -> Any:
    """The vector that a point-in-time join finds at a moment."""
    rows = pd.DataFrame({f"{view.partition('_')[0]}_id": [key], "event_timestamp": [moment]})
    joined = store.get_historical_features(rows, [f"{view}:embedding"]).to_arrow()
    return joined["embedding"].to_pylist()[0]


def push_user(pusher: Pusher, key: int, moment: datetime, **attributes: Any) -> Any:
    return pusher.push("user", [key], {key: attributes}, clock=lambda: moment)


def push_past(pusher: Pusher, key: int, moment: datetime, **attributes: Any) -> Any:
    """A push of a moment that is past by then."""
    later = moment + timedelta(minutes=9)
    return pusher.push("user", [key], {key: attributes}, event_timestamp=moment, clock=lambda: later)


def test_new_user_has_a_vector_online_at_once(pusher: Pusher, store: FeatureStore) -> None:
    pushed = push_user(pusher, 100, at(), score=2.0)
    assert online(store, USERS, 100)["embedding"] == [1.0, 0.0]
    assert online(store, "user_embedding_cvr_v1", 100)["embedding"] == [0.0, 1.0]
    assert [each.version for each in pushed.versions] == ["ctr_v1", "cvr_v1"]


def test_pushed_vector_comes_with_its_event_timestamp(pusher: Pusher, store: FeatureStore) -> None:
    push_user(pusher, 101, at(), score=2.0)
    vectors, moments, statuses = PackedReader(store).read_matrix(USERS, [101], now=at())
    assert vectors.tolist() == [[1.0, 0.0]]
    assert moments.astype("datetime64[us]").tolist() == [at().replace(tzinfo=None)]
    assert statuses.tolist() == ["present"]


def test_new_pin_has_a_vector_online_at_once(pusher: Pusher, store: FeatureStore) -> None:
    pusher.push("pin", [102], {102: {"price": -3.0, "content": [0.5, 0.5]}}, clock=at)
    assert online(store, PINS, 102)["embedding"] == [-1.0, 0.0]
    found = store.get_online_features(["pin_attributes:price", "pin_attributes:content"], [{"pin_id": 102}]).to_dict()
    assert (found["price"], found["content"]) == ([-3.0], [[0.5, 0.5]])


def test_known_user_continues_the_vector_of_the_newest_day(changing_run: Path) -> None:
    pushed = pusher_of(changing_run).push("user", [1], clock=at)
    # The towers say (4, 3) / 5, the day before (1, 0); half of each is (0.9, 0.3).
    found = rows_of(changing_run, USERS, 1)["embedding"].iloc[-1]
    np.testing.assert_allclose(found, np.array([0.9, 0.3]) / np.sqrt(0.9), atol=1e-6)
    assert [each.continued for each in pushed.versions] == [1, 1]


def test_vector_pushed_again_continues_the_day_and_not_the_push_before(changing_run: Path) -> None:
    pusher = pusher_of(changing_run)
    for minutes in (0, 1, 2):
        push_user(pusher, 1, at(minutes=minutes))
    vectors = rows_of(changing_run, USERS, 1)["embedding"].tolist()[1:]
    assert len(vectors) == 3
    np.testing.assert_array_equal(vectors, [vectors[0]] * 3)


def test_known_pin_keeps_what_is_not_given(changing_run: Path) -> None:
    pusher_of(changing_run).push("pin", [10], {10: {"price": 0.0}}, clock=at)
    rows = rows_of(changing_run, "pin_attributes", 10)
    assert rows["price"].tolist() == [3.0, 0.0]
    assert [list(vector) for vector in rows["content"]] == [[1.0, 0.0], [1.0, 0.0]]


def test_point_in_time_join_sees_a_push_from_its_moment_on(pusher: Pusher, store: FeatureStore) -> None:
    push_user(pusher, 103, at(), score=1.0)
    assert offline(store, USERS, 103, at() - timedelta(microseconds=1)) is None
    assert offline(store, USERS, 103, at()) == [1.0, 0.0]


def test_older_push_does_not_replace_a_newer_one(pusher: Pusher, store: FeatureStore) -> None:
    push_user(pusher, 104, at(minutes=5), score=1.0)
    older = push_past(pusher, 104, at(minutes=1), score=-1.0)
    assert online(store, USERS, 104)["embedding"] == [1.0, 0.0]
    assert offline(store, USERS, 104, at(minutes=2)) == [-1.0, 0.0]
    assert [each.newer_kept for each in older.versions] == [1, 1]


def test_pushes_at_once_lose_no_attribute(run: Path, pusher: Pusher, store: FeatureStore) -> None:
    push_user(pusher, 105, at(), score=1.0)
    told: list[dict[str, Any]] = [{"segment": "b"}, {"age": 7}, {"topics": [1, 2]}]
    seconds = itertools.count(1)

    def push(given: dict[str, Any]) -> None:
        # A pusher each, as if each were a process of its own.
        pusher_of(run).push("user", [105], {105: given}, clock=lambda: at(seconds=next(seconds)))

    threads = [threading.Thread(target=push, args=(given,)) for given in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = ["score", "segment", "age", "topics"]
    read = store.get_online_features([f"user_attributes:{name}" for name in names], [{"user_id": 105}]).to_dict()
    assert [read[name][0] for name in names] == [1.0, "b", 7, [1, 2]]
    assert len(rows_of(run, "user_attributes", 105)) == 1 + len(told)


def test_push_of_one_moment_is_written_once_however_often_it_is_repeated(run: Path, pusher: Pusher) -> None:
    for _ in range(3):
        push_past(pusher, 106, at(), score=1.0)
    assert len(rows_of(run, USERS, 106)) == 1
    assert len(rows_of(run, "user_attributes", 106)) == 1


def test_push_killed_between_the_stores_is_whole_after_a_repetition(
    run: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_write_online", killed)
        with pytest.raises(KeyboardInterrupt):
            push_past(pusher_of(run), 107, at(), score=1.0)
    assert online(store, USERS, 107)["embedding"] is None
    push_past(pusher_of(run), 107, at(), score=1.0)
    assert online(store, USERS, 107)["embedding"] == [1.0, 0.0]
    assert len(rows_of(run, USERS, 107)) == 1


def test_push_of_a_past_moment_reads_what_was_known_then(pusher: Pusher, store: FeatureStore) -> None:
    push_user(pusher, 108, at(), score=1.0)
    push_user(pusher, 108, at(minutes=2), score=-1.0)
    push_past(pusher, 108, at(minutes=1))
    assert offline(store, USERS, 108, at(minutes=1)) == [1.0, 0.0]
    assert online(store, USERS, 108)["embedding"] == [-1.0, 0.0]


def test_dry_run_writes_nothing(run: Path, pusher: Pusher, store: FeatureStore) -> None:
    pushed = pusher.push("user", [109], {109: {"score": 1.0}}, clock=at, dry_run=True)
    assert [each.newer_kept for each in pushed.versions] == [None, None]
    assert online(store, USERS, 109)["embedding"] is None
    assert rows_of(run, USERS, 109).empty


def test_unseen_category_is_stored_and_counted_and_read_as_missing(pusher: Pusher, store: FeatureStore) -> None:
    pushed = push_user(pusher, 110, at(), score=1.0, segment="never seen")
    assert [dict(each.unseen) for each in pushed.versions] == [{"segment": 1}, {"segment": 1}]
    read = store.get_online_features(["user_attributes:segment"], [{"user_id": 110}]).to_dict()
    assert read["segment"] == ["never seen"]


def test_nothing_of_the_row_knows_more_than_its_moment(run: Path, pusher: Pusher) -> None:
    push_user(pusher, 111, at(), score=1.0)
    row = rows_of(run, USERS, 111).iloc[0]
    assert row["event_timestamp"] - row["data_cutoff"] >= timedelta(hours=1)
    assert row["data_cutoff"] == USABLE - timedelta(hours=1)


def test_push_of_a_past_moment_is_the_row_that_a_push_at_that_moment_was(run: Path, pusher: Pusher) -> None:
    """As after a kill: what was written is written again, and takes its own place."""
    push_user(pusher, 1, at(), score=1.0)
    before = rows_of(run, USERS, 1)
    pusher.push("user", [1], {1: {"score": 1.0}}, event_timestamp=at(), clock=lambda: at() + timedelta(minutes=5))
    after = rows_of(run, USERS, 1)
    assert len(after) == len(before)
    assert after["data_cutoff"].tolist() == before["data_cutoff"].tolist()
