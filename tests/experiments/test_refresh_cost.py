"""The cost of a refresh: both parts measured, and the lifts that it takes from the aggregation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.data.small_repo import SmallRepo
from tests.experiments.small_run import setting
from trainers.experiments import refresh_cost, refresh_parts
from trainers.experiments.aggregation import ALIGNED, LATEST, WARM, WITHOUT, Case, moving
from trainers.experiments.refresh_cost import REFRESH, RETRAIN
from trainers.experiments.setting import Setting
from trainers.upstream.vector_files import read_vectors


@pytest.fixture(scope="module")
def own(small_repo: SmallRepo, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A run whose rankers are made up here, and no other test's."""
    return setting(small_repo, tmp_path_factory.mktemp("refresh_cost") / "run")


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Measure here: a process of its own spends its time on imports."""
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> None:
        del options
        asked.append(command[3:])
        refresh_parts.main(command[3:])

    monkeypatch.setattr(refresh_cost.subprocess, "run", run)
    return asked


def averages(own: Setting) -> list[str]:
    """Averages over days that the refresh and the retrain are compared by."""
    return [LATEST, *map(moving, own.recipe.weights)]


def with_lifts(own: Setting) -> None:
    """Scores of the aggregation's rankers: good ones, better ones, and none."""
    labels = own.job.data.examples.labels[own.job.split.test, own.job.columns()[0]]
    folder = own.work("rankers")
    parts = {WITHOUT: 0.5}
    for average in averages(own):
        parts |= {Case(WARM, average).key: 1.5, Case(ALIGNED, average).key: 1.6}
    for seed in own.job.seeds:
        noise = np.random.default_rng(seed).normal(size=len(labels))
        for name, part in parts.items():
            scores = (part * labels + noise).astype(np.float32)
            save_file({"scores": scores}, folder / f"{name}_seed{seed}.safetensors")


def test_refresh_cost_needs_the_lifts_of_the_aggregation(own: Setting) -> None:
    with pytest.raises(ValueError, match=r"run `headwater experiment aggregation --run .* --seeds 1` first"):
        refresh_cost.run(own)


def test_refresh_cost_sets_one_day_against_everything(own: Setting, in_this_process: list[list[str]]) -> None:
    with_lifts(own)
    rows = refresh_cost.run(own)
    assert [(row["aggregation"], row["way"]) for row in rows] == [
        (name, way) for name in averages(own) for way in (RETRAIN, REFRESH)
    ]
    full, day = rows[:2]
    of_full, of_day = (json.loads((own.work("refresh_cost") / f"{name}.json").read_text()) for name in ("full", "day"))
    shared = of_day["train"]["seconds"] + of_day["publish"]["seconds"]
    assert full["seconds"] == pytest.approx(of_full["read"]["seconds"] + of_full["train"]["seconds"] + shared)
    assert day["seconds"] == pytest.approx(sum(phase["seconds"] for phase in of_day.values()))
    assert day["share_of_seconds_pct"] == pytest.approx(100.0 * day["seconds"] / full["seconds"])
    assert day["share_of_lift_pct"] == pytest.approx(100.0 * day["lift_pct"] / full["lift_pct"])
    assert [each[1] for each in in_this_process] == ["full", "day"]
    again = refresh_cost.run(own)
    assert again[1]["seconds"] == day["seconds"]
    assert len(in_this_process) == 2


def test_the_day_is_published_as_a_refresh_would(own: Setting) -> None:
    published = own.work("refresh_cost") / "walk" / "published"
    for entity in ("user", "pin"):
        keys, vectors = read_vectors(published / f"{entity}.parquet", entity, own.version.dim)
        assert len(keys) > 0
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
