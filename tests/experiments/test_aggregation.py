"""The aggregation experiment: days that were only turned must come out as they were, once they are aligned."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.experiments.small_run import kept, nothing
from tests.upstream.spaces import mapped, rotation
from trainers.experiments import aggregation, walks
from trainers.experiments.aggregation import ALIGNED, LATEST, MEAN, UNALIGNED, WARM, Case, moving
from trainers.experiments.setting import Setting
from trainers.experiments.variants import published
from trainers.experiments.walks import WalkRequest
from trainers.upstream.frame import Frame


@pytest.fixture(scope="module")
def rows(opened: Setting) -> Iterator[dict[tuple[str, str], dict[str, Any]]]:
    """The table by training and aggregation; a retrained day is the warm one in a basis of its own."""
    days = kept(published(opened.offline, opened.version, opened.cutoffs()))

    def of(_: object, request: WalkRequest) -> Iterator[tuple[datetime, Frame]]:
        if request.name == "warm":
            yield from days.items()
        else:
            turn = rotation(opened.version.dim, request.seed)
            yield request.until, mapped(days[request.until], turn, turn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walks.Walks, "run", nothing)
        patch.setattr(walks.Walks, "days", of)
        yield {(row["training"], row["aggregation"]): row for row in aggregation.run(opened)}


def test_table_has_every_training_and_aggregation(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    average = moving(0.8)
    assert list(rows) == [
        (WARM, LATEST),
        (WARM, MEAN),
        (WARM, average),
        (ALIGNED, LATEST),
        (ALIGNED, MEAN),
        (ALIGNED, average),
        (UNALIGNED, LATEST),
        (UNALIGNED, average),
        ("none", "no embeddings"),
    ]


def test_every_row_is_compared_with_none_and_with_its_latest(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    for (training, name), row in rows.items():
        assert ("lift_pct" in row) == (training != "none")
        assert ("change_to_latest_pct" in row) == (training != "none" and name != LATEST)


def test_a_case_names_its_files_plainly() -> None:
    assert Case(ALIGNED, moving(0.5)).key == "daily_retrain_aligned_moving_average_w_0.5"


def test_every_day_is_retrained_from_a_start_of_its_own(opened: Setting) -> None:
    found = aggregation._Aggregation(opened, opened.work("unused"))._retrains
    assert [each.until for each in found] == opened.cutoffs()
    assert len({each.seed for each in found}) == len(found)
    assert all(each.embed_from == each.until for each in found)
