"""Feast's own push, and how pushed rows meet Feast's materialization and the next day's snapshot."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore
from feast.data_source import PushMode, PushSource

from feature_repo.layout import apply, open_store
from feature_repo.push.pusher import Pusher
from feature_repo.stores.engine.checks import InvalidRowsError
from feature_repo.stores.engine.compute_engine import is_plain
from tests.feature_repo.push.pushed_repo import CUTOFF, DELAY, USABLE, at, pusher_of, rows_of, write_day
from tests.feature_repo.push.test_pusher import USERS, offline, online, push_user

SOURCE = f"{USERS}_push"


def vectors(key: int, vector: Any, moment: datetime) -> pd.DataFrame:
    row = {"user_id": [key], "embedding": [vector], "data_cutoff": [CUTOFF]}
    return pd.DataFrame(row | {"event_timestamp": [moment], "created_timestamp": [at(days=1)]})


def test_every_view_of_vectors_and_attributes_has_a_push_source(store: FeatureStore) -> None:
    found = {source.name for source in store.list_data_sources() if isinstance(source, PushSource)}
    pushed = [view.name for view in store.list_feature_views() if view.stream_source is not None]
    assert found == {f"{name}_push" for name in pushed}
    assert len(found) == 6


def test_push_sources_stay_when_the_repo_is_applied_again(changing_run: Path) -> None:
    repo = changing_run / "feature_repo"
    before = sorted(source.name for source in open_store(repo).list_data_sources())
    apply(repo)
    assert sorted(source.name for source in open_store(repo).list_data_sources()) == before


def test_feast_push_writes_both_stores(store: FeatureStore) -> None:
    store.push(SOURCE, vectors(200, [0.6, 0.8], at()), to=PushMode.ONLINE_AND_OFFLINE)
    expected = np.array([0.6, 0.8], np.float32).tolist()
    assert online(store, USERS, 200)["embedding"] == expected
    assert offline(store, USERS, 200, at()) == expected
    assert offline(store, USERS, 200, at() - timedelta(microseconds=1)) is None


def test_feast_push_of_an_older_row_does_not_replace_a_newer_one(store: FeatureStore) -> None:
    for vector, minutes in (([1.0, 0.0], 5), ([0.0, 1.0], 1)):
        store.push(SOURCE, vectors(201, vector, at(minutes=minutes)), to=PushMode.ONLINE_AND_OFFLINE)
    assert online(store, USERS, 201)["embedding"] == [1.0, 0.0]
    assert offline(store, USERS, 201, at(minutes=2)) == [0.0, 1.0]


@pytest.mark.parametrize("vector", [[1.0], [1.0, float("nan")], [1.0, 2.0, 3.0]])
def test_feast_push_of_a_wrong_vector_is_refused_by_either_store(
    store: FeatureStore, run: Path, vector: list[float]
) -> None:
    # A wrong width is refused by Feast itself before our store sees it.
    with pytest.raises(ValueError, match=r"embedding|imension"):
        store.push(SOURCE, vectors(202, vector, at()), to=PushMode.ONLINE)
    with pytest.raises(InvalidRowsError, match="user_id=202: embedding must"):
        store.push(SOURCE, vectors(202, vector, at()), to=PushMode.OFFLINE)
    assert rows_of(run, USERS, 202).empty


def test_attributes_with_nulls_can_be_pushed_by_feast(store: FeatureStore) -> None:
    row = {"user_id": [203], "segment": ["b"], "score": [None], "age": [7], "topics": [[1]]}
    stamps = {"event_timestamp": [at()], "created_timestamp": [at()]}
    frame = pd.DataFrame(row | stamps).astype({"score": "float64"})
    store.push("user_attributes_push", frame, to=PushMode.ONLINE_AND_OFFLINE)
    features = [f"user_attributes:{name}" for name in ("segment", "score", "age")]
    found = store.get_online_features(features, [{"user_id": 203}]).to_dict()
    assert (found["segment"], found["score"], found["age"]) == (["b"], [None], [7])


def test_views_with_a_push_source_are_materialized_by_our_engine(store: FeatureStore) -> None:
    views = [view for view in store.list_feature_views() if view.stream_source is not None]
    assert len(views) == 6
    assert all(is_plain(view) for view in views)


def test_materialization_brings_pushed_rows_online_too(changing_run: Path) -> None:
    store = open_store(changing_run / "feature_repo")
    store.push(SOURCE, vectors(204, [0.0, 1.0], at()), to=PushMode.OFFLINE)
    assert online(store, USERS, 204)["embedding"] is None
    store.materialize(USABLE, at(hours=1), [USERS])
    assert online(open_store(changing_run / "feature_repo"), USERS, 204)["embedding"] == [0.0, 1.0]


def test_vector_of_the_next_day_replaces_a_pushed_one(changing_run: Path) -> None:
    push_user(pusher_of(changing_run), 1, at())
    repo, tomorrow = changing_run / "feature_repo", CUTOFF + timedelta(days=1)
    write_day(repo, tomorrow, {"user": {1: (0.0, 1.0)}})
    open_store(repo).materialize(tomorrow + DELAY - timedelta(hours=23), tomorrow + DELAY, [USERS])
    assert online(open_store(repo), USERS, 1)["embedding"] == [0.0, 1.0]


def test_push_after_the_next_day_stays_when_that_day_is_materialized_late(pusher: Pusher, store: FeatureStore) -> None:
    push_user(pusher, 205, at(minutes=1), score=-1.0)
    store.push(SOURCE, vectors(205, [1.0, 0.0], USABLE), to=PushMode.ONLINE)
    assert online(store, USERS, 205)["embedding"] == [-1.0, 0.0]
