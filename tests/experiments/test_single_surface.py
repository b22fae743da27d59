"""A team with the log of one surface alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainers.evaluation.step import Evaluation
from trainers.experiments.setting import Setting
from trainers.experiments.single_surface import folder_name, small_surfaces, surface_evaluation


@pytest.fixture(scope="module")
def surface(opened: Setting) -> str:
    """A surface with a small part of the impressions."""
    return small_surfaces(opened.job, min_rows=40)[0]


@pytest.fixture(scope="module")
def team(opened: Setting, surface: str, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Its downstream rows."""
    return surface_evaluation(opened, surface, tmp_path_factory.mktemp("surface") / "team")


def test_team_has_the_rows_of_its_surface_alone(opened: Setting, team: Evaluation, surface: str) -> None:
    whole = opened.job.data
    assert set(team.data.surfaces) == {surface}
    assert len(team.data.surfaces) == (whole.surfaces == surface).sum()
    assert team.spec.histories == ()


def test_team_knows_no_activity_on_other_surfaces(opened: Setting, team: Evaluation, surface: str) -> None:
    whole = opened.job.data
    own = whole.surfaces == surface
    assert (team.data.user_impressions <= whole.user_impressions[own]).all()
    assert team.data.user_impressions.sum() < whole.user_impressions[own].sum()


def test_team_reads_the_vectors_that_the_run_published(opened: Setting, team: Evaluation, surface: str) -> None:
    own = opened.job.data.surfaces == surface
    for name in ("user_vector_0", "user_vector_1"):
        np.testing.assert_array_equal(team.data.examples.inputs[name], opened.job.data.examples.inputs[name][own])


def test_log_of_a_team_is_made_once(opened: Setting, team: Evaluation, surface: str) -> None:
    folder = team.context.directory
    note = folder / "event_log" / "spec.json"
    before = note.stat().st_mtime_ns
    surface_evaluation(opened, surface, folder)
    assert note.stat().st_mtime_ns == before


def test_surfaces_that_are_most_of_the_log_or_too_small_have_no_team(opened: Setting) -> None:
    surfaces = opened.job.data.surfaces
    shares = {str(name): (surfaces == name).mean() for name in np.unique(surfaces)}
    found = small_surfaces(opened.job, min_rows=40)
    assert found
    assert all(shares[name] <= 0.5 for name in found)
    assert small_surfaces(opened.job, min_rows=10**6) == []


def test_folder_of_a_surface_is_a_plain_name() -> None:
    assert folder_name("home/feed 2") == "home_feed_2"
    assert Path(folder_name("0")).name == "0"
