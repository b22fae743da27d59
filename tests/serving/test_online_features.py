"""What is read for each entity, from the two services of a release."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from feature_repo.release.manifest import ReleaseError, Services
from serving.online_features import by_view, open_features

NOW = datetime(2026, 1, 10, tzinfo=UTC)


def test_user_reads_join_the_features_of_both_services(tiny_run: Path) -> None:
    services = Services(ranking="ranking", retrieval="retrieval__ctr_v1")
    user = open_features(tiny_run / "feature_repo", services)["user"]
    read = user.read([1, 999], NOW)
    assert set(by_view(user.references)) == {"user_activity", "user_attributes", "user_embedding_ctr_v1"}
    assert set(read.features.column_names) == user.columns
    assert read.features["user_id"].to_pylist() == [1, 999]
    assert read.features["user_embedding_ctr_v1__embedding"].to_pylist() == [[1.0, 0.0], None]
    assert all(read.status(view) == ["present", "missing"] for view in by_view(user.references))


def test_pin_reads_hold_the_ranking_service_alone(tiny_run: Path) -> None:
    services = Services(ranking="ranking", retrieval="retrieval__ctr_v1")
    pin = open_features(tiny_run / "feature_repo", services)["pin"]
    assert set(by_view(pin.references)) == {"pin_activity", "pin_attributes"}


def test_services_that_agree_are_read_once(tiny_run: Path) -> None:
    services = Services(ranking="ranking__ctr_v1", retrieval="retrieval__ctr_v1")
    assert len(open_features(tiny_run / "feature_repo", services)["user"].readers) == 1


def test_unknown_service_is_named_with_the_known_ones(tiny_run: Path) -> None:
    services = Services(ranking="ranking__ctr_v7", retrieval="retrieval")
    with pytest.raises(ReleaseError, match=r"service 'ranking__ctr_v7' \(it has \['ranking', 'ranking__ctr_v1'"):
        open_features(tiny_run / "feature_repo", services)


def test_features_are_grouped_by_view_in_order() -> None:
    assert by_view(["b:x", "a:y", "b:z"]) == {"b": ["x", "z"], "a": ["y"]}
