"""The upgrade experiment: a retrained model that learned exactly the same must cost an aligned consumer nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experiments.small_run import kept, nothing, turned
from tests.upstream.spaces import rotation
from trainers.experiments import upgrade, walks
from trainers.experiments.setting import Setting
from trainers.upstream.compatibility import BackwardMap

ALIGNED = ("procrustes", "svd_procrustes", "fitted_map", "compatible")


def backward_map(opened: Setting, folder: Path) -> Path:
    """File of the map that undoes the turn."""
    found = BackwardMap(opened.version.dim, opened.version.dim)
    turn = rotation(opened.version.dim, 7)
    found.matrix.data.copy_(found.matrix.data.new_tensor(turn.T))
    found.save(folder / "map")
    return folder / "map"


@pytest.fixture(scope="module")
def rows(opened: Setting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """The table by case, where every successor is the version itself in another basis."""
    days = kept(turned(opened))
    file = backward_map(opened, tmp_path_factory.mktemp("map"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walks.Walks, "run", nothing)
        patch.setattr(walks.Walks, "days", lambda *_: iter(days.items()))
        patch.setattr(walks.Walks, "backward_map", lambda *_: file)
        # What is published has been averaged already.
        patch.setattr(upgrade, "averaged", lambda found, _: found)
        yield {row["case"]: row for row in upgrade.run(with_retrains(opened, 2))}


def with_retrains(opened: Setting, retrains: int) -> Setting:
    """The same run with more retrainings."""
    found = copy.copy(opened)
    found.num_retrains = retrains
    return found


def test_table_has_every_way_to_go_on(rows: dict[str, dict[str, Any]]) -> None:
    assert list(rows) == [
        upgrade.REFRESHED,
        *upgrade.CASES.values(),
        *upgrade.MOVED.values(),
        upgrade.WITHOUT,
    ]
    assert {row["n_test"] for row in rows.values()} == {rows[upgrade.WITHOUT]["n_test"]}
    assert all(row["num_rankers"] == 2 for row in rows.values())


@pytest.mark.parametrize("case", ALIGNED)
def test_a_consumer_loses_nothing_to_the_same_space_once_it_is_aligned(
    rows: dict[str, dict[str, Any]], case: str
) -> None:
    row = rows[upgrade.CASES[case]]
    assert row["cosine_to_v"] == pytest.approx(1.0, abs=1e-4)
    assert row["change_to_v_pct"] == pytest.approx(0.0, abs=0.05)
    assert row["roc_auc"] == pytest.approx(rows[upgrade.REFRESHED]["roc_auc"], abs=5e-4)


def test_a_consumer_reads_something_else_where_nobody_aligns(rows: dict[str, dict[str, Any]]) -> None:
    row = rows[upgrade.CASES["unaligned"]]
    assert abs(row["cosine_to_v"]) < 0.3
    assert row["roc_auc"] != pytest.approx(rows[upgrade.REFRESHED]["roc_auc"], abs=1e-3)


def test_no_row_is_compared_with_itself(rows: dict[str, dict[str, Any]]) -> None:
    assert "change_to_v_pct" not in rows[upgrade.REFRESHED]
    assert "change_to_none_pct" not in rows[upgrade.WITHOUT]


def test_intervals_hold_their_change(rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        for name in ("change_to_v", "change_to_none"):
            if f"{name}_pct" in row:
                low, high = row[f"{name}_ci95"]
                assert low - 1e-9 <= row[f"{name}_pct"] <= high + 1e-9 or high - low < 1e-6


def test_fitted_map_looks_at_entities_of_both_frames_alone() -> None:
    known = np.eye(4, dtype=np.float32)
    newer = {"user": (np.arange(4), known), "pin": (np.arange(4), known)}
    older = {"user": (np.arange(3), 2.0 * known[:3]), "pin": (np.array([3, 9]), 2.0 * known[[3, 0]])}
    fitted = upgrade._fitted(newer, {entity: (keys, rows.astype(np.float32)) for entity, (keys, rows) in older.items()})
    np.testing.assert_allclose(fitted.matrix.numpy(), 2.0 * np.eye(4), atol=1e-5)


def test_retrainings_are_seeded_apart_from_the_run_and_from_each_other(opened: Setting) -> None:
    found = [upgrade._Upgrade(opened, Path("nowhere"))._retraining(number) for number in range(3)]
    assert [each.retrained.seed for each in found] == [1001, 1002, 1003]
    assert found[0].compatible == replace(
        found[0].retrained, name="compatible_0", compatible_with=opened.version, compatibility_weight=1.0
    )
