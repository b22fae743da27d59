"""Variants of a version's vectors: what is aggregated, and what a ranker gets of them through Feast."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.data.tiny_log import at
from tests.experiments.small_run import unit
from trainers.data.version_vectors import version_vectors
from trainers.experiments.setting import Setting
from trainers.experiments.variants import Days, Variants, averaged, plain_average, published
from trainers.upstream.frame import Frame

PIN = (np.array([1]), unit((1.0, 0.0)))
HOUR = 3_600_000_000


def day(users: dict[int, tuple[float, float]]) -> Frame:
    """Vectors of some users, and of one Pin."""
    return {"user": (np.array(list(users)), unit(*users.values())), "pin": PIN}


DAYS: Days = [
    (at(2), day({7: (1.0, 0.0), 9: (0.0, 1.0)})),
    (at(3), day({7: (0.0, 1.0)})),
    (at(4), day({7: (0.0, 1.0), 8: (1.0, 0.0), 9: (1.0, 0.0)})),
]


def test_plain_average_is_the_mean_of_the_days_on_which_an_entity_was_there_without_a_gap() -> None:
    """User 9 left on the second day: its first vector is forgotten, as in the moving average."""
    (_, first), (_, second), (_, third) = plain_average(DAYS)
    np.testing.assert_allclose(first["user"][1], unit((1.0, 0.0), (0.0, 1.0)))
    np.testing.assert_allclose(second["user"][1], unit((0.5**0.5, 0.5**0.5)), atol=1e-6)
    assert third["user"][0].tolist() == [7, 8, 9]
    np.testing.assert_allclose(third["user"][1], unit((0.2**0.5, 0.8**0.5), (1.0, 0.0), (1.0, 0.0)), atol=1e-6)


def test_moving_average_of_weight_0_is_the_latest_day() -> None:
    for (_, found), (_, wanted) in zip(averaged(DAYS, 0.0), DAYS, strict=True):
        np.testing.assert_allclose(found["user"][1], wanted["user"][1])


def test_moving_average_weighs_the_past() -> None:
    second = list(averaged(DAYS, 0.8))[1][1]
    np.testing.assert_allclose(second["user"][1], unit((0.8, 0.2)) / np.sqrt(0.68), atol=1e-6)


def test_published_leaves_out_cutoffs_without_a_snapshot(opened: Setting) -> None:
    cutoffs = opened.cutoffs()
    asked = [cutoffs[0] - timedelta(days=1), *cutoffs]
    assert [cutoff for cutoff, _ in published(opened.offline, opened.version, asked)] == cutoffs


def test_variants_are_read_point_in_time_and_missing_before_their_first_day(tmp_path: Path) -> None:
    variants = Variants(tmp_path / "repo", "ctr", 48, timedelta(minutes=30))
    variants.add("one", DAYS)
    variants.add("other", [(at(2), day({7: (0.6, 0.8)}))])
    assert list(variants) == ["one", "other"]
    moments = np.array([round(at(2).timestamp() * 1e6), round(at(2).timestamp() * 1e6) + HOUR, 0])
    moments[2] = round(at(3).timestamp() * 1e6) + HOUR
    store, keys = variants.store(), np.array([7, 7, 7])
    one, other = (version_vectors(store, variants[name], "user", keys, moments) for name in variants)
    np.testing.assert_allclose(one, [[0.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    np.testing.assert_allclose(other, [[0.0, 0.0, 0.0], [0.6, 0.8, 1.0], [0.6, 0.8, 1.0]], atol=1e-6)


def test_vectors_need_a_moment_for_each_key(opened: Setting) -> None:
    with pytest.raises(ValueError, match=r"every key needs a moment \(got 2 keys and 1 moments\)"):
        version_vectors(opened.evaluation.store, opened.version, "user", np.array([1, 2]), np.array([0]))


def test_vectors_of_no_rows_are_no_vectors(opened: Setting) -> None:
    none = np.empty(0, np.int64)
    found = version_vectors(opened.evaluation.store, opened.version, "pin", none, none)
    assert found.shape == (0, opened.version.dim + 1)


def test_ranker_inputs_of_the_runs_own_version_are_those_that_the_run_trains_on(opened: Setting) -> None:
    found = opened.inputs(opened.evaluation.store, opened.version)
    for name, values in found.items():
        np.testing.assert_array_equal(values, opened.job.data.examples.inputs[name])
