"""The consumers experiment on the small repo: its rows, what each is compared with, and what it hides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from tests.experiments.small_run import nothing
from trainers.experiments import consumers, walks
from trainers.experiments.consumers import (
    ALL_MISSING,
    BOOSTED,
    CROSS,
    LESS,
    LOGISTIC,
    NONE,
    PAST,
    READS,
    SOME_MISSING,
    VECTORS,
    _Consumers,
)
from trainers.experiments.setting import Setting
from trainers.experiments.variants import published
from trainers.experiments.walks import WalkRequest
from trainers.upstream.frame import Frame

Key = tuple[str, str, str, str]


@pytest.fixture(scope="module")
def rows(opened: Setting) -> Iterator[dict[Key, dict[str, Any]]]:
    """The table; the run's own vectors stand for cross representations."""

    def days(_: object, request: WalkRequest) -> Iterator[tuple[datetime, Frame]]:
        assert request.cross_days == opened.recipe.cross_days
        yield from published(opened.offline, opened.version, opened.cutoffs())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walks.Walks, "run", nothing)
        patch.setattr(walks.Walks, "days", days)
        patch.setattr(consumers, "small_surfaces", lambda *_: [])
        found = consumers.run(opened)
        yield {(row["task"], row["consumer"], row["ranker"], row[READS]): row for row in found}


def test_table_of_the_whole_log_has_every_ranker_and_reading(rows: dict[Key, dict[str, Any]]) -> None:
    neural = [reads for _, _, ranker, reads in rows if ranker == "DCNv2 + MMoE"]
    assert neural == [NONE, VECTORS, PAST, CROSS, ALL_MISSING, SOME_MISSING]
    others = [(task, ranker, reads) for task, _, ranker, reads in rows if ranker in (BOOSTED, LOGISTIC)]
    assert others == [
        (task, ranker, reads)
        for task in ("click", "purchase")
        for ranker in (BOOSTED, LOGISTIC)
        for reads in (NONE, VECTORS)
    ]
    assert {consumer for _, consumer, _, _ in rows} == {LESS}


def test_rows_are_compared_with_the_base_and_with_vectors_alone(rows: dict[Key, dict[str, Any]]) -> None:
    for (task, _, _, reads), row in rows.items():
        assert ("lift_pct" in row) == (reads != NONE)
        # No user of the small repo both buys and does not on one day.
        assert ("gauc_lift_pct" in row) == (reads != NONE and task == "click")
        assert ("change_to_vectors_pct" in row) == (reads not in (NONE, VECTORS))


def test_a_regression_has_one_ranker_and_others_one_a_seed(opened: Setting, rows: dict[Key, dict[str, Any]]) -> None:
    for (_, _, ranker, _), row in rows.items():
        assert row["num_rankers"] == (1 if ranker == LOGISTIC else len(opened.job.seeds))


def test_hidden_vectors_are_zero_with_their_flags_in_a_share_of_the_rows(opened: Setting) -> None:
    opened_consumers = _Consumers(opened, opened.work("consumers"))
    own = opened.job.data.examples.inputs
    for share in (0.1, 1.0):
        for name, values in opened_consumers._hidden(share).items():
            hidden = (values != own[name][opened.job.split.test]).any(axis=1)
            assert not values[hidden].any()
            present = own[name][opened.job.split.test][:, -1] > 0.0
            assert hidden[present].mean() == pytest.approx(share, abs=0.05)


def test_rows_of_a_surface_are_kept(opened: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _Consumers(opened, opened.work("consumers"))
    made = []

    class Team:
        spec = opened.evaluation.spec

        def ranker_job(self, task: str, **_: Any) -> Any:
            made.append(task)
            surface = opened.job.data.surfaces == opened.job.data.surfaces[0]
            keep = {name: rows[surface[rows]] for name, rows in vars_of(opened.job.split).items()}
            return replace(opened.job, split=replace(opened.job.split, **keep))

    monkeypatch.setattr(consumers, "surface_evaluation", lambda *_: Team())
    first, second = found._surface("a b"), found._surface("a b")
    assert first == second
    assert made == ["click"]
    assert [(row["ranker"], row[READS]) for row in first] == [
        ("DCNv2 + MMoE", NONE),
        ("DCNv2 + MMoE", VECTORS),
        (BOOSTED, NONE),
        (BOOSTED, VECTORS),
    ]
    assert {row["consumer"] for row in first} == {"surface a b alone"}


def vars_of(split: Any) -> dict[str, np.ndarray]:
    """Rows of a split by part."""
    return {name: getattr(split, name) for name in ("train", "validation", "test")}
