"""The live and the shadow release: promoted, rolled back, shadowed."""

from __future__ import annotations

import pytest

from feature_repo.versions import (
    Catalogue,
    CatalogueError,
    Pointers,
    UnknownSubjectError,
    WrongStateError,
)
from tests.feature_repo.catalogue.lives import ALICE, BOB, add_live, add_release, states


def live(name: str | None, revision: int) -> Pointers:
    return Pointers(live=name, shadow=None, shadow_share=0.0, revision=revision)


def test_nothing_is_live_at_first(catalogue: Catalogue) -> None:
    assert catalogue.pointers() == live(None, 0)


def test_promotion_moves_pointer_releases_and_versions_together(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1", "cvr_v1")
    add_release(catalogue, "r-2", "ctr_v2", "cvr_v1")
    assert catalogue.promote("r-2", **BOB, expected_live="r-1") == live("r-2", 2)
    assert states(catalogue) == {
        "ctr_v1": "superseded",
        "ctr_v2": "live",
        "cvr_v1": "live",
        "r-1": "superseded",
        "r-2": "live",
    }
    made = [(each.subject, each.before, each.after) for each in catalogue.transitions() if each.who == "bob@desk"]
    assert made == [
        ("release r-1", "live", "superseded"),
        ("release r-2", "candidate", "live"),
        ("version ctr_v1", "live", "superseded"),
        ("version ctr_v2", "candidate", "live"),
        ("pointers", "r-1", "r-2"),
    ]


def test_promotion_leaves_candidates_of_others_alone(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_release(catalogue, "r-2", "ctr_v2")
    add_live(catalogue, "r-3", "ctr_v3")
    assert states(catalogue)["ctr_v2"] == "candidate"


def test_promotion_repeated_by_the_same_step_is_no_change(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_release(catalogue, "r-2", "ctr_v1")
    catalogue.promote("r-2", **ALICE, expected_live="r-1")
    before = catalogue.transitions()
    assert catalogue.promote("r-2", **ALICE, expected_live="r-1") == live("r-2", 2)
    assert catalogue.transitions() == before


def test_promotion_of_the_live_release_is_told_by_whom(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    with pytest.raises(WrongStateError, match=r"release r-1 must be .*\(got live\): alice@desk .* 'her test'"):
        catalogue.promote("r-1", **BOB)


def test_promotion_over_another_than_expected_is_told_by_whom(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_release(catalogue, "r-2", "ctr_v1")
    add_release(catalogue, "r-3", "ctr_v1")
    catalogue.promote("r-2", **ALICE, expected_live="r-1")
    with pytest.raises(WrongStateError, match=r"must be r-1 as you saw it \(got r-2\): alice@desk .* 'her test'"):
        catalogue.promote("r-3", **BOB, expected_live="r-1")
    with pytest.raises(WrongStateError, match=r"must be none as you saw it \(got r-2\)"):
        catalogue.promote("r-3", **BOB, expected_live=None)
    assert catalogue.pointers() == live("r-2", 2)


def test_promotion_of_what_is_retired_or_unknown_is_refused(catalogue: Catalogue) -> None:
    add_release(catalogue, "r-1", "ctr_v1")
    catalogue.retire_release("r-1", **ALICE)
    with pytest.raises(WrongStateError, match=r"be candidate or superseded \(got retired\)"):
        catalogue.promote("r-1", **ALICE)
    with pytest.raises(UnknownSubjectError, match=r"one of r-1 \(got 'r-9'\)"):
        catalogue.promote("r-9", **ALICE)
    assert catalogue.pointers() == live(None, 0)


def test_rollback_is_the_inverse_of_promotion(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    before = states(catalogue)
    add_live(catalogue, "r-2", "ctr_v2")
    assert catalogue.rollback(**ALICE) == live("r-1", 3)
    assert states(catalogue) == {**before, "ctr_v2": "superseded", "r-2": "superseded"}


def test_rollbacks_go_back_one_promotion_each(catalogue: Catalogue) -> None:
    for name in ("r-1", "r-2", "r-3"):
        add_live(catalogue, name, "ctr_v1")
    assert catalogue.rollback(who="alice", why="slow").live == "r-2"
    assert catalogue.rollback(who="alice", why="still slow").live == "r-1"
    with pytest.raises(WrongStateError, match=r"must have been live before the live one \(got r-1\)"):
        catalogue.rollback(who="alice", why="slow as ever")


def test_promotion_after_a_rollback_is_undone_to_where_it_was_made(catalogue: Catalogue) -> None:
    for name in ("r-1", "r-2", "r-3"):
        add_live(catalogue, name, "ctr_v1")
    catalogue.rollback(**ALICE, to="r-1")
    catalogue.promote("r-3", **BOB)
    assert catalogue.rollback(**BOB).live == "r-1"


def test_rollback_repeated_by_the_same_operator_is_no_change(catalogue: Catalogue) -> None:
    for name in ("r-1", "r-2", "r-3"):
        add_live(catalogue, name, "ctr_v1")
    assert catalogue.rollback(**ALICE).live == "r-2"
    assert catalogue.rollback(**ALICE) == live("r-2", 4)
    assert catalogue.rollback(**ALICE, to="r-2") == live("r-2", 4)
    assert catalogue.rollback(**ALICE, to="r-1") == live("r-1", 5)


def test_rollback_goes_to_a_release_that_was_live_before(catalogue: Catalogue) -> None:
    for name in ("r-1", "r-2", "r-3"):
        add_live(catalogue, name, "ctr_v1")
    add_release(catalogue, "r-4", "ctr_v1")
    with pytest.raises(CatalogueError, match=r"live before r-3 \(got 'r-4'; before it: r-2, r-1\); promote it"):
        catalogue.rollback(**ALICE, to="r-4")
    assert catalogue.rollback(**ALICE, to="r-1").live == "r-1"


def test_rollback_to_a_retired_release_is_refused_with_who_retired_it(catalogue: Catalogue) -> None:
    for name in ("r-1", "r-2", "r-3"):
        add_live(catalogue, name, "ctr_v1")
    catalogue.retire_release("r-2", **BOB)
    with pytest.raises(WrongStateError, match=r"release r-2 must be .*\(got retired\): bob@desk"):
        catalogue.rollback(**ALICE)
    assert catalogue.rollback(**ALICE, to="r-1").live == "r-1"


def test_rollback_from_another_than_expected_is_told_by_whom(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_live(catalogue, "r-2", "ctr_v1")
    catalogue.rollback(**BOB)
    with pytest.raises(WrongStateError, match=r"be r-2 as you saw it \(got r-1\): bob@desk"):
        catalogue.rollback(**ALICE, expected_live="r-2")


def test_rollback_without_a_live_release_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(WrongStateError, match=r"live before the live one \(got none\)"):
        catalogue.rollback(**ALICE)


def test_rollback_target_is_where_a_rollback_goes(catalogue: Catalogue) -> None:
    for name in ("r-1", "r-2", "r-3"):
        add_live(catalogue, name, "ctr_v1")
    assert (catalogue.rollback_target(), catalogue.rollback_target("r-1")) == ("r-2", "r-1")
    assert catalogue.pointers() == live("r-3", 3)
    with pytest.raises(CatalogueError, match=r"before it: r-2, r-1"):
        catalogue.rollback_target("r-3")


def test_shadow_is_a_pointer_that_changes_no_state(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_release(catalogue, "r-2", "ctr_v2")
    before = states(catalogue)
    shadowed = catalogue.shadow("r-2", 0.25, **ALICE)
    assert shadowed == Pointers(live="r-1", shadow="r-2", shadow_share=0.25, revision=2)
    assert catalogue.shadow("r-2", 0.25, **BOB) == shadowed
    assert states(catalogue) == before
    last = catalogue.transitions("pointers")[-1]
    assert (last.before, last.after, last.details["shadow"]) == ("r-1", "r-1", "r-2")
    assert catalogue.shadow(None, **ALICE) == live("r-1", 3)


def test_shadow_that_is_promoted_is_a_shadow_no_more(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_release(catalogue, "r-2", "ctr_v1")
    catalogue.shadow("r-2", 1.0, **ALICE)
    assert catalogue.promote("r-2", **ALICE) == live("r-2", 3)


def test_shadow_stays_when_another_release_is_promoted(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_release(catalogue, "r-2", "ctr_v1")
    catalogue.shadow("r-2", 0.5, **ALICE)
    add_live(catalogue, "r-3", "ctr_v1")
    assert catalogue.pointers() == Pointers(live="r-3", shadow="r-2", shadow_share=0.5, revision=3)


def test_live_release_cannot_be_the_shadow(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    with pytest.raises(WrongStateError, match=r"release r-1 must be candidate or superseded \(got live\)"):
        catalogue.shadow("r-1", 0.5, **ALICE)


@pytest.mark.parametrize(
    ("name", "share"), [("r-1", 0.0), ("r-1", 1.5), ("r-1", -0.1), ("r-1", float("nan")), (None, 0.5)]
)
def test_shadow_refuses_a_share_that_cannot_be(file_catalogue: Catalogue, name: str | None, share: float) -> None:
    add_release(file_catalogue, "r-1", "ctr_v1")
    with pytest.raises(ValueError, match="share must be above 0 and at most 1"):
        file_catalogue.shadow(name, share, **ALICE)
