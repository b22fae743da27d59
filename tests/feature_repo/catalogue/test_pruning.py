"""Pruned subjects, and a run that starts over."""

from __future__ import annotations

import pytest

from feature_repo.versions import Catalogue, InUseError, Pointers, UnknownSubjectError, VersionState, WrongStateError
from tests.feature_repo.catalogue.lives import (
    ALICE,
    BOB,
    add_candidate,
    add_live,
    add_release,
    make_visible,
    states,
    version,
)


def test_retired_version_and_release_are_pruned_and_their_records_stay(catalogue: Catalogue) -> None:
    add_release(catalogue, "r-1", "ctr_v1")
    make_visible(catalogue, "ctr_v1", 0)
    catalogue.retire_release("r-1", **ALICE)
    catalogue.retire_version("ctr_v1", **ALICE)
    for subject in ("version ctr_v1", "release r-1"):
        catalogue.check_prunable(subject)
        catalogue.mark_pruned(subject, **ALICE, details={"bytes": 7})
        assert catalogue.transitions(subject)[-1].details == {"bytes": 7}
    assert states(catalogue) == {"ctr_v1": "pruned", "r-1": "pruned"}
    assert len(catalogue.days("ctr_v1")) == 1


def test_prune_repeated_by_the_same_step_is_no_change_and_by_another_is_told(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    catalogue.retire_version("ctr_v1", **ALICE)
    catalogue.mark_pruned("version ctr_v1", **ALICE)
    catalogue.mark_pruned("version ctr_v1", **ALICE)
    with pytest.raises(WrongStateError, match=r"be retired to be pruned \(got pruned\): alice@desk"):
        catalogue.mark_pruned("version ctr_v1", **BOB)


@pytest.mark.parametrize("subject", ["version ctr_v1", "release r-1"])
def test_prune_only_from_retired(file_catalogue: Catalogue, subject: str) -> None:
    add_release(file_catalogue, "r-1", "ctr_v1")
    for refused in (file_catalogue.check_prunable, lambda each: file_catalogue.mark_pruned(each, **ALICE)):
        with pytest.raises(WrongStateError, match=r"be retired to be pruned \(got candidate\)"):
            refused(subject)


def test_version_that_a_service_reads_since_it_was_retired_is_not_pruned(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    catalogue.retire_version("ctr_v1", **ALICE)
    catalogue.record_consumers({"fraud": ["ctr_v1"]}, ())
    with pytest.raises(InUseError, match=r"to be pruned \(got 1: service fraud \(reads ctr_v1\)\)"):
        catalogue.mark_pruned("version ctr_v1", **ALICE)
    assert catalogue.version("ctr_v1").state == VersionState.RETIRED


@pytest.mark.parametrize("subject", ["ctr_v1", "day ctr_v1", "version ", "version ctr_v9", "release r-9"])
def test_prune_of_what_is_no_subject_is_refused(file_catalogue: Catalogue, subject: str) -> None:
    with pytest.raises(UnknownSubjectError):
        file_catalogue.mark_pruned(subject, **ALICE)


def test_pruned_version_is_not_changed_any_more(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    catalogue.retire_version("ctr_v1", **ALICE)
    catalogue.mark_pruned("version ctr_v1", **ALICE)
    with pytest.raises(WrongStateError, match=r"not be pruned to be changed \(got pruned\)"):
        catalogue.update_version("ctr_v1", artifacts={"a": "1"})


def test_reset_forgets_everything_but_what_was_done(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_candidate(catalogue, "ctr_v2", parents=("ctr_v1",))
    catalogue.update_version("ctr_v1", served_through="ctr_v2")
    add_live(catalogue, "r-2", "ctr_v2")
    make_visible(catalogue, "ctr_v1", 0)
    catalogue.record_consumers({"fraud": ["ctr_v1"]}, ())
    before = catalogue.transitions()
    catalogue.reset(**BOB)
    assert states(catalogue) == {}
    assert catalogue.pointers() == Pointers(live=None, shadow=None, shadow_share=0.0, revision=3)
    assert catalogue.transitions()[:-1] == before
    catalogue.create_version(version("ctr_v1"), **BOB)
    assert catalogue.consumers("ctr_v1") == []
    last = catalogue.transitions("catalogue")[-1]
    assert (last.who, last.details) == ("bob@desk", {"operation": "reset", "versions": 2, "days": 1, "releases": 2})


def test_reset_of_an_empty_catalogue_is_no_change(catalogue: Catalogue) -> None:
    catalogue.create_version(version("ctr_v1"), **ALICE)
    catalogue.reset(**ALICE)
    before = (catalogue.pointers(), catalogue.transitions())
    catalogue.reset(**ALICE)
    assert (catalogue.pointers(), catalogue.transitions()) == before


def test_life_after_a_reset_knows_nothing_of_the_one_before(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_live(catalogue, "r-2", "ctr_v1")
    catalogue.rollback(**ALICE)
    catalogue.reset(**ALICE)
    with pytest.raises(WrongStateError, match=r"live before the live one \(got none\)"):
        catalogue.rollback(**ALICE)
    add_live(catalogue, "r-1", "ctr_v1")
    add_live(catalogue, "r-2", "ctr_v1")
    assert states(catalogue) == {"ctr_v1": "live", "r-1": "superseded", "r-2": "live"}
    assert catalogue.rollback(**ALICE).live == "r-1"
    assert catalogue.consumers("ctr_v1")[0].name == "r-1"
