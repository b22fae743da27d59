"""What is read for each entity, from the two services of a release."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from feast import RepoConfig

from feature_repo.release.manifest import ReleaseError, Services
from feature_repo.stores.packed.cells import CellRequest, Cells
from feature_repo.stores.sqlite.packed_store import PackedSqliteOnlineStore
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


def test_what_both_services_hold_is_read_in_one_round_trip_and_once(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[list[tuple[str, tuple[str, ...]]]] = []
    real = PackedSqliteOnlineStore.read_cells

    def counted(self: PackedSqliteOnlineStore, config: RepoConfig, requests: Sequence[CellRequest]) -> list[Cells]:
        trips.append([(request.view.name, request.names) for request in requests])
        return real(self, config, requests)

    monkeypatch.setattr(PackedSqliteOnlineStore, "read_cells", counted)
    services = Services(ranking="ranking", retrieval="retrieval__ctr_v1")
    user = open_features(tiny_run / "feature_repo", services)["user"]
    user.read([1], NOW)
    (asked,) = trips
    assert sorted(view for view, _ in asked) == sorted(by_view(user.references))
    assert sum(len(names) for _, names in asked) == len(user.references)


def test_unknown_service_is_named_with_the_known_ones(tiny_run: Path) -> None:
    services = Services(ranking="ranking__ctr_v7", retrieval="retrieval")
    with pytest.raises(ReleaseError, match=r"service 'ranking__ctr_v7' \(it has \['ranking', 'ranking__ctr_v1'"):
        open_features(tiny_run / "feature_repo", services)


def test_features_are_grouped_by_view_in_order() -> None:
    assert by_view(["b:x", "a:y", "b:z"]) == {"b": ["x", "z"], "a": ["y"]}
