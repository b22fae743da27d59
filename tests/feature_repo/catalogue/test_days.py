"""Days of a version: generated, checked or failed, visible."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

import pytest

from feature_repo.versions import Catalogue, DayRecord, DayState, UnknownSubjectError, WrongStateError
from tests.feature_repo.catalogue.lives import ALICE, add_backfilling, add_candidate, cutoff, day, make_visible, version


def test_day_is_read_back_as_it_was_put(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    made = day(
        "ctr_v1",
        3,
        gates={"norm_p01_user": 0.25, "neighbour_overlap_at_10": 0.875},
        snapshot_sha256={"user": "aa", "pin": "bb"},
        seconds=12.5,
        peak_mb=812.0,
        entities={"user": 100, "pin": 40},
        finished=datetime(2024, 3, 4, 1, 2, 3, 456789, tzinfo=timezone(timedelta(hours=2))),
    )
    assert catalogue.put_day(made) == made
    assert catalogue.days("ctr_v1") == [made]


def test_figures_that_are_not_finite_are_kept(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    catalogue.put_day(day("ctr_v1", 0))
    gates = {"norm_p99_user": math.inf, "cosine_p05_user": math.nan, "drift": -math.inf}
    catalogue.put_day(day("ctr_v1", 0, "failed", gates=gates, failed=("norm_p99_user",)))
    stored = catalogue.days("ctr_v1")[0]
    assert stored.gates["norm_p99_user"] == math.inf
    assert math.isnan(stored.gates["cosine_p05_user"])
    assert stored.gates["drift"] == -math.inf


def test_days_are_listed_from_a_cutoff_on(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    add_backfilling(catalogue, "ctr_v2")
    for number in (2, 0, 1):
        catalogue.put_day(day("ctr_v1", number))
    catalogue.put_day(day("ctr_v2", 5))
    assert [each.cutoff for each in catalogue.days("ctr_v1")] == [cutoff(0), cutoff(1), cutoff(2)]
    assert [each.cutoff for each in catalogue.days("ctr_v1", since=cutoff(1))] == [cutoff(1), cutoff(2)]
    with pytest.raises(ValueError, match="since must be UTC-aware"):
        catalogue.days("ctr_v1", since=datetime(2024, 3, 1))


def test_newest_day_is_the_newest_visible_one(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    assert catalogue.newest_day("ctr_v1") is None
    make_visible(catalogue, "ctr_v1", 0)
    make_visible(catalogue, "ctr_v1", 1)
    catalogue.put_day(day("ctr_v1", 2))
    catalogue.put_day(day("ctr_v1", 2, "failed"))
    newest, tried = catalogue.newest_day("ctr_v1"), catalogue.newest_day("ctr_v1", None)
    assert newest is not None
    assert tried is not None
    assert (newest.cutoff, tried.cutoff, tried.state) == (cutoff(1), cutoff(2), "failed")
    assert catalogue.newest_day("ctr_v1", "checked") is None


@pytest.mark.parametrize(
    "path",
    [
        ("generated", "checked", "visible", "visible"),
        ("generated", "generated", "checked", "checked", "visible"),
        ("generated", "failed", "failed", "generated", "checked", "visible"),
        ("generated", "checked", "generated"),
    ],
    ids=" ".join,
)
def test_day_takes_the_states_of_a_refresh(file_catalogue: Catalogue, path: tuple[DayState, ...]) -> None:
    add_backfilling(file_catalogue, "ctr_v1")
    for state in path:
        file_catalogue.put_day(day("ctr_v1", 0, state))
    recorded = [each.after for each in file_catalogue.transitions() if each.subject.startswith("day ctr_v1")]
    assert recorded == [state for state, before in zip(path, (None, *path), strict=False) if state != before]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("checked",), r"be one of generated next, not checked \(got none\)"),
        (("visible",), "be one of generated next, not visible"),
        (("generated", "visible"), "be one of generated, checked, failed next, not visible"),
        (("generated", "failed", "visible"), "be one of failed, generated next, not visible"),
        (("generated", "failed", "checked"), "be one of failed, generated next, not checked"),
        (("generated", "checked", "visible", "generated"), "stay visible"),
        (("generated", "checked", "visible", "failed"), "stay visible"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_day_takes_no_other_states(file_catalogue: Catalogue, path: tuple[DayState, ...], message: str) -> None:
    add_backfilling(file_catalogue, "ctr_v1")
    for state in path[:-1]:
        file_catalogue.put_day(day("ctr_v1", 0, state))
    with pytest.raises(WrongStateError, match=message):
        file_catalogue.put_day(day("ctr_v1", 0, path[-1]))


def test_visible_day_keeps_its_snapshots(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    make_visible(catalogue, "ctr_v1", 0)
    catalogue.put_day(day("ctr_v1", 0, "visible", seconds=9.0))
    with pytest.raises(WrongStateError, match="stay visible with the snapshots"):
        catalogue.put_day(day("ctr_v1", 0, "visible", snapshot_sha256={"user": "b"}))
    stored = catalogue.days("ctr_v1")[0]
    assert (stored.snapshot_sha256, stored.seconds) == ({"user": "a"}, 9.0)


def test_transition_of_a_day_tells_what_failed_and_who_said_so(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    catalogue.put_day(day("ctr_v1", 0))
    catalogue.put_day(day("ctr_v1", 0, "failed"), who="refresh", why="2024-03-01")
    last = catalogue.transitions("day ctr_v1 2024-03-01T00:00:00+00:00")[-1]
    assert (last.before, last.after, last.who) == ("generated", "failed", "refresh")
    assert last.details["failed"] == ["coverage_user"]
    assert last.details["gates"]["coverage_user"] == 0.9


def test_retired_version_takes_no_days(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    catalogue.retire_version("ctr_v1", **ALICE)
    with pytest.raises(WrongStateError, match=r"version ctr_v1 must be refreshed no more \(got retired\): alice@desk"):
        catalogue.put_day(day("ctr_v1", 0))


def test_days_of_an_unknown_version_are_refused(catalogue: Catalogue) -> None:
    catalogue.create_version(version("ctr_v1"), **ALICE)
    for ask in (catalogue.days, catalogue.newest_day, lambda key: catalogue.put_day(day(key, 0))):
        with pytest.raises(UnknownSubjectError, match=r"one of ctr_v1 \(got 'cvr_v1'\)"):
            ask("cvr_v1")


@pytest.mark.parametrize(("state", "failed"), [("failed", ()), ("checked", ("coverage_user",))])
def test_day_record_names_failed_gates_when_it_failed(state: DayState, failed: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="failed gates must be named"):
        day("ctr_v1", 0, state, failed=failed)


def test_day_record_refuses_a_naive_cutoff_and_an_unknown_state() -> None:
    with pytest.raises(ValueError, match="cutoff must be UTC-aware"):
        DayRecord(key="ctr_v1", cutoff=datetime(2024, 3, 1), state="generated")
    with pytest.raises(ValueError, match="got 'done'"):
        DayRecord(key="ctr_v1", cutoff=cutoff(0), state="done")  # type: ignore[arg-type]
