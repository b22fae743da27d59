"""Every operation killed at each of its statements: nothing of it is done, or all; then it may be repeated."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from feature_repo.versions import Catalogue, VersionState
from tests.feature_repo.catalogue.invariants import violations
from tests.feature_repo.catalogue.kills import run_exiting, run_killed
from tests.feature_repo.catalogue.lives import (
    ALICE,
    BOB,
    add_backfilling,
    add_live,
    add_release,
    day,
    release,
    space,
    version,
)
from tests.feature_repo.catalogue.seen import look

OPERATIONS: dict[str, Callable[[Catalogue], object]] = {
    "create_version": lambda it: it.create_version(version("ctr_v9", parents=("ctr_v1",)), **BOB),
    "move_version": lambda it: it.move_version(
        "ctr_v3", VersionState.CANDIDATE, expected=VersionState.BACKFILLING, **BOB
    ),
    "update_version": lambda it: it.update_version("ctr_v3", artifacts={"a": "1"}, **BOB),
    "put_day": lambda it: it.put_day(day("ctr_v3", 0, "checked"), **BOB),
    "create_release": lambda it: it.create_release(release("r-9", "ctr_v1", "cvr_v1", parent="r-1"), **BOB),
    "promote": lambda it: it.promote("r-3", **BOB, expected_live="r-2"),
    "rollback": lambda it: it.rollback(**BOB),
    "shadow": lambda it: it.shadow("r-3", 0.5, **BOB),
    "retire_release": lambda it: it.retire_release("r-1", **BOB),
    "retire_version": lambda it: it.retire_version("ctr_v3", **BOB),
    "mark_pruned": lambda it: it.mark_pruned("version cvr_v2", **BOB),
    "record_consumers": lambda it: it.record_consumers({"ads": ["ctr_v1"], "feed": ["ctr_v2"]}),
    "reset": lambda it: it.reset(**BOB),
}


def prepare(catalogue: Catalogue) -> None:
    """A catalogue in which each of the operations has much to do."""
    add_live(catalogue, "r-1", "ctr_v1", "cvr_v1")
    add_live(catalogue, "r-2", "ctr_v2", "cvr_v1")
    add_release(catalogue, "r-3", "ctr_v1", "cvr_v1")
    add_backfilling(catalogue, "ctr_v3")
    catalogue.update_version("ctr_v3", space_id=space("ctr_v3"))
    catalogue.put_day(day("ctr_v3", 0))
    add_backfilling(catalogue, "cvr_v2")
    catalogue.retire_version("cvr_v2", **ALICE)
    catalogue.record_consumers({"fraud": ["ctr_v1"]})


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_operation_killed_anywhere_was_done_as_a_whole_or_not_at_all(file_catalogue: Catalogue, name: str) -> None:
    prepare(file_catalogue)
    catalogue, moment = file_catalogue, 0
    before = look(catalogue).without_times()
    # Each round is killed one statement later, until it is killed after its commit.
    while look(catalogue).without_times() == before:
        run_killed(catalogue, moment, lambda: OPERATIONS[name](catalogue))
        assert violations(look(catalogue)) == []
        moment += 1
    done = look(catalogue).without_times()
    OPERATIONS[name](catalogue)
    assert look(catalogue).without_times() == done
    assert moment > 3


@pytest.mark.parametrize("name", ["promote", "reset"])
@pytest.mark.parametrize("moment", [0, 1, 3, 6, 10_000])
def test_process_that_ends_without_a_word_leaves_all_or_nothing(catalogue: Catalogue, name: str, moment: int) -> None:
    prepare(catalogue)
    before = look(catalogue).without_times()
    run_exiting(catalogue, moment, lambda: OPERATIONS[name](catalogue))
    assert (look(catalogue).without_times() == before) == (moment < 10_000)
    OPERATIONS[name](catalogue)
    done = look(catalogue)
    assert done.without_times() != before
    assert violations(done) == []
