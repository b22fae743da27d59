"""Embedding versions: created, moved, updated, retired."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from feature_repo.versions import (
    Catalogue,
    CatalogueError,
    InUseError,
    UnknownSubjectError,
    VersionRecord,
    VersionState,
    WrongStateError,
)
from tests.feature_repo.catalogue.lives import (
    ALICE,
    BOB,
    add_backfilling,
    add_candidate,
    add_live,
    add_release,
    space,
    version,
)

TRAINING, BACKFILLING, CANDIDATE = VersionState.TRAINING, VersionState.BACKFILLING, VersionState.CANDIDATE


def test_version_is_read_back_as_it_was_created(catalogue: Catalogue) -> None:
    catalogue.create_version(version("ctr_v1"), **ALICE)
    made = version(
        "ctr_v2",
        recipe={"w": 0.8, "towers": [64, 32], "loss": None},
        commit="0abc",
        seed=2**40,
        data_from=datetime(2024, 1, 1, tzinfo=UTC),
        data_until=datetime(2024, 3, 1, 0, 0, 0, 123456, tzinfo=UTC),
        parents=("ctr_v1",),
        alignment="backward_compatible",
        space_id="0123456789ab",
        artifacts={"upstream/ctr_v2/checkpoint.safetensors": "f00d"},
    )
    assert catalogue.create_version(made, **ALICE) == made
    assert catalogue.version("ctr_v2") == made


def test_version_created_again_from_the_same_is_no_change(catalogue: Catalogue) -> None:
    made = version("ctr_v1", recipe={"towers": (64, 32)})
    catalogue.create_version(made, **ALICE)
    catalogue.move_version("ctr_v1", BACKFILLING, expected=TRAINING, **ALICE)
    again = catalogue.create_version(version("ctr_v1", recipe={"towers": (64, 32)}, commit="later"), **BOB)
    assert (again.state, again.commit) == (BACKFILLING, "")
    assert len(catalogue.transitions()) == 2


def test_version_created_from_something_else_is_refused_with_its_maker(catalogue: Catalogue) -> None:
    catalogue.create_version(version("ctr_v1", seed=1), **ALICE)
    with pytest.raises(WrongStateError, match=r"same seed \(got training\): alice@desk made it so at .* 'her test'"):
        catalogue.create_version(version("ctr_v1", seed=2), **BOB)


def test_version_of_an_unknown_parent_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownSubjectError, match=r"version must exist \(got 'ctr_v1', and there is none yet\)"):
        catalogue.create_version(version("ctr_v2", parents=("ctr_v1",)), **ALICE)
    assert catalogue.versions() == []


def test_version_must_begin_as_training(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match=r"begin as training \(got live\)"):
        catalogue.create_version(version("ctr_v1", state=VersionState.LIVE), **ALICE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"key": "ctr_v2", "version": 1}, "key 'ctr_v2', model 'ctr', version 1"),
        ({"key": "ctr_v0", "version": 0}, "version 0"),
        ({"dim": 0}, "got 0 and 72"),
        ({"ttl_hours": 0}, "got 8 and 0"),
        ({"alignment": "magic"}, "got 'magic'"),
        ({"space_id": "xyz"}, "12 hex digits"),
        ({"data_until": datetime(2024, 1, 1)}, "data_until must be UTC-aware"),
    ],
)
def test_version_record_refuses_what_cannot_be(fields: dict[str, object], message: str) -> None:
    given = {"key": "ctr_v1", "model": "ctr", "version": 1, "dim": 8, **fields}
    with pytest.raises(ValueError, match=message):
        VersionRecord(**given)  # type: ignore[arg-type]


def test_versions_are_listed_by_model_and_number(catalogue: Catalogue) -> None:
    for key in ("cvr_v1", "ctr_v10", "ctr_v2"):
        catalogue.create_version(version(key), **ALICE)
    catalogue.move_version("ctr_v2", BACKFILLING, expected=TRAINING, **ALICE)
    assert [each.key for each in catalogue.versions()] == ["ctr_v2", "ctr_v10", "cvr_v1"]
    assert [each.key for each in catalogue.versions(model="ctr", states=[TRAINING])] == ["ctr_v10"]


def test_next_number_was_never_given(catalogue: Catalogue) -> None:
    assert catalogue.next_version("ctr") == 1
    catalogue.create_version(version("ctr_v3"), **ALICE)
    catalogue.retire_version("ctr_v3", **ALICE)
    catalogue.mark_pruned("version ctr_v3", **ALICE)
    assert (catalogue.next_version("ctr"), catalogue.next_version("cvr")) == (4, 1)


def test_move_goes_through_backfilling_to_candidate(catalogue: Catalogue) -> None:
    catalogue.create_version(version("ctr_v1"), **ALICE)
    moved = catalogue.move_version("ctr_v1", BACKFILLING, expected=TRAINING, **ALICE, details={"days": 9})
    assert moved.state == BACKFILLING
    assert catalogue.transitions("version ctr_v1")[-1].details == {"days": 9}
    catalogue.update_version("ctr_v1", space_id="0123456789ab")
    assert catalogue.move_version("ctr_v1", CANDIDATE, expected=BACKFILLING, **ALICE).state == CANDIDATE


def test_move_repeated_by_the_same_step_is_no_change(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    before = catalogue.transitions()
    assert catalogue.move_version("ctr_v1", BACKFILLING, expected=TRAINING, **ALICE).state == BACKFILLING
    assert catalogue.transitions() == before


def test_move_tells_who_was_first(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    with pytest.raises(WrongStateError, match=r"be training .*\(got backfilling\): alice@desk .* 'her test'") as told:
        catalogue.move_version("ctr_v1", BACKFILLING, expected=TRAINING, **BOB)
    assert told.value.last == catalogue.transitions("version ctr_v1")[-1]


@pytest.mark.parametrize("to", [CANDIDATE, VersionState.LIVE, VersionState.RETIRED, VersionState.PRUNED])
def test_move_makes_no_other_moves(file_catalogue: Catalogue, to: VersionState) -> None:
    file_catalogue.create_version(version("ctr_v1", space_id="0123456789ab"), **ALICE)
    with pytest.raises(WrongStateError, match=f"got a move from training to {to}"):
        file_catalogue.move_version("ctr_v1", to, expected=TRAINING, **ALICE)


def test_candidate_must_have_a_space_id(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    with pytest.raises(CatalogueError, match="must have a space id"):
        catalogue.move_version("ctr_v1", CANDIDATE, expected=BACKFILLING, **ALICE)


def test_change_must_say_who_and_why(catalogue: Catalogue) -> None:
    with pytest.raises(ValueError, match=r"who makes it and why \(got who 'alice', why ' '\)"):
        catalogue.create_version(version("ctr_v1"), who="alice", why=" ")


def test_update_changes_what_is_given_and_records_it(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    until = datetime(2024, 3, 4, tzinfo=UTC)
    updated = catalogue.update_version("ctr_v1", data_until=until, artifacts={"a": "1", "b": "2"}, **BOB)
    assert (updated.data_until, updated.artifacts) == (until, {"a": "1", "b": "2"})
    last = catalogue.transitions("version ctr_v1")[-1]
    assert (last.before, last.after, last.who) == ("candidate", "candidate", "bob@desk")
    assert last.details == {"artifacts": 2, "data_until": "2024-03-04T00:00:00+00:00"}


def test_update_with_what_it_has_is_no_change(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    before = catalogue.transitions()
    catalogue.update_version("ctr_v1", space_id=space("ctr_v1"), artifacts={})
    assert catalogue.transitions() == before


def test_space_id_may_change_only_before_candidate(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    catalogue.update_version("ctr_v1", space_id="0123456789ab")
    catalogue.update_version("ctr_v1", space_id="ba9876543210")
    catalogue.move_version("ctr_v1", CANDIDATE, expected=BACKFILLING, **ALICE)
    with pytest.raises(WrongStateError, match=r"keep its space id ba9876543210 .*asked for 0123456789ab"):
        catalogue.update_version("ctr_v1", space_id="0123456789ab")
    assert catalogue.version("ctr_v1").space_id == "ba9876543210"


def test_update_refuses_a_naive_moment_and_what_is_no_space_id(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    with pytest.raises(ValueError, match="UTC-aware"):
        catalogue.update_version("ctr_v1", data_until=datetime(2024, 3, 4))
    with pytest.raises(ValueError, match="12 hex digits"):
        catalogue.update_version("ctr_v1", space_id="short")


def test_version_is_served_through_a_newer_one_that_names_it(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    add_candidate(catalogue, "ctr_v2", parents=("ctr_v1",), alignment="backward_compatible")
    assert catalogue.update_version("ctr_v1", served_through="ctr_v2").served_through == "ctr_v2"
    assert [str(each) for each in catalogue.consumers("ctr_v2")] == [
        "version ctr_v1 (candidate, served through ctr_v2)"
    ]
    assert catalogue.update_version("ctr_v1", served_through="").served_through is None
    assert catalogue.consumers("ctr_v2") == []


@pytest.mark.parametrize(
    ("newer", "parents", "ready"),
    [
        ("ctr_v2", (), True),
        ("ctr_v2", ("ctr_v1",), False),
        ("cvr_v2", ("ctr_v1",), True),
    ],
    ids=["no parent", "not ready", "another model"],
)
def test_version_is_served_through_nothing_else(
    file_catalogue: Catalogue, newer: str, parents: tuple[str, ...], ready: bool
) -> None:
    add_candidate(file_catalogue, "ctr_v1")
    (add_candidate if ready else add_backfilling)(file_catalogue, newer, parents=parents)
    with pytest.raises(CatalogueError, match="must be served through a newer version of ctr that names it as parent"):
        file_catalogue.update_version("ctr_v1", served_through=newer)


def test_version_that_serves_another_cannot_be_retired(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    add_candidate(catalogue, "ctr_v2", parents=("ctr_v1",))
    catalogue.update_version("ctr_v1", served_through="ctr_v2")
    with pytest.raises(InUseError, match="version ctr_v1"):
        catalogue.retire_version("ctr_v2", **ALICE)
    catalogue.retire_version("ctr_v1", **ALICE)
    assert catalogue.retire_version("ctr_v2", **ALICE).state == VersionState.RETIRED


def test_version_without_consumers_is_retired_from_any_state(catalogue: Catalogue) -> None:
    catalogue.create_version(version("ctr_v1"), **ALICE)
    add_backfilling(catalogue, "ctr_v2")
    add_candidate(catalogue, "ctr_v3")
    add_live(catalogue, "r-1", "ctr_v4")
    add_live(catalogue, "r-2", "ctr_v5")
    catalogue.retire_release("r-1", **ALICE)
    for key in ("ctr_v1", "ctr_v2", "ctr_v3", "ctr_v4"):
        assert catalogue.retire_version(key, **ALICE, details={"freed_mb": 3}).state == VersionState.RETIRED
    assert catalogue.transitions("version ctr_v4")[-1].details == {"freed_mb": 3}


def test_version_in_use_is_not_retired_and_every_consumer_is_named(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_release(catalogue, "r-2", "ctr_v1", parent="r-1")
    catalogue.record_consumers({"fraud": ["ctr_v1"]}, ())
    with pytest.raises(InUseError) as refused:
        catalogue.retire_version("ctr_v1", **ALICE)
    assert [str(each) for each in refused.value.consumers] == [
        "release r-1 (live)",
        "release r-2 (candidate)",
        "service fraud (reads ctr_v1)",
    ]
    assert all(str(each) in str(refused.value) for each in refused.value.consumers)


def test_version_retired_again_is_told_by_whom(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    catalogue.retire_version("ctr_v1", **ALICE)
    catalogue.retire_version("ctr_v1", **ALICE)
    with pytest.raises(WrongStateError, match=r"\(got retired\): alice@desk"):
        catalogue.retire_version("ctr_v1", **BOB)
    assert catalogue.transitions()[-1].who == "alice@desk"
