"""The Feast client of the benchmarks, on a small repo written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feature_repo.layout import apply, create_repo, open_store
from tests.benchmarks.feast_client import compared, entity_rows, measure, offline_values
from tests.feature_repo.repos import MANIFEST, hours, write_all


@pytest.fixture(name="run", scope="module")
def run_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("client")
    repo = run / "feature_repo"
    create_repo(repo, MANIFEST)
    apply(repo)
    write_all(repo)
    open_store(repo).materialize(hours(-24), hours(48))
    return run


@pytest.mark.slow
def test_client_in_another_process_reads_exactly_what_the_files_hold(run: Path) -> None:
    rows = {str(row.params["call"]): row for row in measure(run, num_rows=10, repeats=2, commit="0123")}
    assert set(rows) == {"open", "get_online_features", "get_historical_features"}
    for call in ("get_online_features", "get_historical_features"):
        assert rows[call].n == 2
        assert rows[call].params["values"] == rows[call].params["equal"]
    assert rows["get_online_features"].params["service"] == "ranking__ctr_v1__cvr_v1"


def test_offline_values_are_those_of_the_newest_rows(run: Path) -> None:
    keys = entity_rows(run / "feature_repo", 10)
    views = ("user_activity", "pin_embedding_ctr_v1", "pin_attributes")
    values = offline_values(run / "feature_repo", views, keys)
    assert keys["event_timestamp"].to_pylist() == [hours(25), hours(25)]
    assert values["user_activity__impressions_1d"] == [101, 102]
    assert values["pin_embedding_ctr_v1__embedding"] == [[10.0, 1.0, 0.0, 1.0], [11.0, 1.0, 0.0, 1.0]]
    assert values["pin_attributes__topic"] == ["food", None]


def test_compared_counts_a_feature_that_only_one_side_has_as_different() -> None:
    expected: dict[str, list[Any]] = {"a__x": [1, None], "a__y": [[0.5], [1.5]], "a__absent": [1, 1]}
    got = pa.table({"user_id": [1, 2], "a__x": [1, None], "a__y": [[0.5], [2.5]], "b__new": [1, 1]})
    assert compared(expected, got) == (8, 3)
