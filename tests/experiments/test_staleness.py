"""The staleness experiment: which vectors an age stands for, and which rows it is judged on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from trainers.experiments import staleness
from trainers.experiments.ages import FRESH, MISSING, WITHOUT, age_cells, age_name
from trainers.experiments.setting import Setting
from trainers.experiments.variants import published


@pytest.fixture(scope="module")
def rows(opened: Setting) -> dict[tuple[str, str], dict[str, Any]]:
    """The table by model and vectors."""
    return {(row["model"], row["vectors"]): row for row in staleness.run(opened)}


def test_table_goes_from_fresh_to_never(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    vectors = [name for model, name in rows if model == staleness.RANKER]
    assert vectors == [FRESH, "1 day older", "2 days older", "3 days older", MISSING, WITHOUT]
    models = list(dict.fromkeys(model for model, _ in rows))
    assert models == [staleness.RANKER, "inner product of the vectors", "two-tower"]


def test_fresh_is_what_others_are_compared_with(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    for (_, vectors), row in rows.items():
        assert ("change_to_fresh_pct" in row) == (vectors != FRESH)
        assert row.get("age_days") == {FRESH: 0, "1 day older": 1, "2 days older": 2, "3 days older": 3}.get(vectors)


def test_an_age_shows_how_many_rows_had_a_vector(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    row = rows[staleness.RANKER, "1 day older"]
    assert 0.0 < row["user_present"] <= 1.0
    assert 0.0 < row["pin_present"] <= 1.0


def test_missing_vectors_are_not_the_same_as_none(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    missing, without = (rows[staleness.RANKER, vectors]["roc_auc"] for vectors in (MISSING, WITHOUT))
    assert missing != without


def test_an_aged_snapshot_holds_what_was_published_so_many_days_before(opened: Setting) -> None:
    experiment = staleness._Staleness(opened, opened.work("staleness"))
    held = dict(published(opened.offline, opened.version, opened.cutoffs()))
    aged = dict(experiment._aged(2))
    assert list(aged) == [cutoff for cutoff in opened.cutoffs() if cutoff >= opened.switch - timedelta(days=1)]
    for cutoff, frame in aged.items():
        np.testing.assert_array_equal(frame["user"][1], held[cutoff - timedelta(days=2)]["user"][1])


def test_rows_are_judged_from_the_first_day_that_has_vectors_of_the_age(opened: Setting) -> None:
    experiment = staleness._Staleness(opened, opened.work("staleness"))
    micros = opened.job.data.event_micros[opened.job.split.test]
    first = opened.cutoffs()[0]
    days = (opened.switch - first).days
    assert len(experiment._rows_with_age(1)) == len(micros)
    for age in (days, days + 1):
        usable = round((first + timedelta(days=age) + opened.publish_delay).timestamp() * 1e6)
        np.testing.assert_array_equal(experiment._rows_with_age(age), np.flatnonzero(micros >= usable))


def test_ages_are_read_back_from_their_names() -> None:
    assert [age_name(age) for age in (1, 14)] == ["1 day older", "14 days older"]
    assert age_cells(age_name(14)) == {"age_days": 14}
    assert age_cells(FRESH) == {"age_days": 0}
    assert age_cells(MISSING) == age_cells(WITHOUT) == {}
