"""Releases: created from versions that agree, and retired."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy.engine import URL

from feature_repo.versions import (
    Catalogue,
    CatalogueError,
    InUseError,
    ReleaseDisagreesError,
    ReleaseState,
    UnknownSubjectError,
    WrongStateError,
)
from tests.feature_repo.catalogue.lives import (
    ALICE,
    BOB,
    add_backfilling,
    add_candidate,
    add_live,
    add_release,
    release,
    space,
    states,
    version,
)


def test_release_is_read_back_as_it_was_created(catalogue: Catalogue) -> None:
    add_release(catalogue, "r-0", "ctr_v1")
    add_candidate(catalogue, "cvr_v1")
    made = release(
        "r-1",
        "ctr_v1",
        "cvr_v1",
        services={"ranking": "ranking__ctr_v1__cvr_v1"},
        parent="r-0",
        made_by="refresh",
        data_cutoff=datetime(2024, 3, 5, 6, tzinfo=UTC),
    )
    assert catalogue.create_release(made, **ALICE) == made
    assert catalogue.release("r-1") == made
    assert [each.id for each in catalogue.releases()] == ["r-0", "r-1"]


def test_release_created_again_as_it_was_is_no_change(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    before = catalogue.transitions()
    assert catalogue.create_release(release("r-1", "ctr_v1"), **BOB).state == ReleaseState.LIVE
    assert catalogue.transitions() == before


def test_release_created_otherwise_is_refused_with_its_maker(catalogue: Catalogue) -> None:
    add_release(catalogue, "r-1", "ctr_v1")
    with pytest.raises(WrongStateError, match=r"same manifest_sha256 \(got candidate\): alice@desk"):
        catalogue.create_release(release("r-1", "ctr_v1", manifest_sha256="other"), **BOB)


def test_retired_release_is_not_made_again(catalogue: Catalogue) -> None:
    add_release(catalogue, "r-1", "ctr_v1")
    catalogue.retire_release("r-1", **ALICE)
    with pytest.raises(WrongStateError, match=r"in use to be made again \(got retired\)"):
        catalogue.create_release(release("r-1", "ctr_v1"), **ALICE)


def test_release_of_versions_that_disagree_names_every_disagreement(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    add_candidate(catalogue, "ctr_v2")
    add_backfilling(catalogue, "cvr_v1")
    made = release("r-1", "ctr_v1", "cvr_v1", "cvr_v2")
    spaces = {**made.versions, "ctr_v2": "0123456789ab"}
    with pytest.raises(ReleaseDisagreesError) as refused:
        catalogue.create_release(release("r-1", versions=spaces), **ALICE)
    for problem in (
        f"version ctr_v2 is space {space('ctr_v2')}, not 0123456789ab",
        "version cvr_v1 is backfilling, not candidate, live, superseded",
        "version cvr_v2 is unknown",
        "ctr_v1 and ctr_v2 are two spaces of one model",
    ):
        assert problem in str(refused.value)
    assert catalogue.releases() == []


def test_release_must_name_a_version(catalogue: Catalogue) -> None:
    with pytest.raises(ReleaseDisagreesError, match="names no embedding version"):
        catalogue.create_release(release("r-1"), **ALICE)


@pytest.mark.parametrize("state", ["live", "superseded"])
def test_release_may_name_versions_that_were_promoted(file_catalogue: Catalogue, state: str) -> None:
    add_live(file_catalogue, "r-1", "ctr_v1")
    if state == "superseded":
        add_live(file_catalogue, "r-2", "ctr_v2")
    assert states(file_catalogue)["ctr_v1"] == state
    assert file_catalogue.create_release(release("r-3", "ctr_v1"), **ALICE).state == ReleaseState.CANDIDATE


def test_release_of_a_retired_version_is_refused(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    catalogue.retire_version("ctr_v1", **ALICE)
    with pytest.raises(ReleaseDisagreesError, match="ctr_v1 is retired"):
        catalogue.create_release(release("r-1", "ctr_v1"), **ALICE)


def test_release_of_an_unknown_parent_is_refused(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    with pytest.raises(UnknownSubjectError, match=r"release must exist \(got 'r-0', and there is none yet\); make one"):
        catalogue.create_release(release("r-1", "ctr_v1", parent="r-0"), **ALICE)


def test_release_must_begin_as_candidate(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    with pytest.raises(CatalogueError, match=r"begin as candidate \(got live\)"):
        catalogue.create_release(release("r-1", "ctr_v1", state=ReleaseState.LIVE), **ALICE)


def test_folder_belongs_to_one_release(catalogue: Catalogue) -> None:
    add_release(catalogue, "r-1", "ctr_v1")
    with pytest.raises(CatalogueError, match=r"must be its own \(got 'releases/r-1', which is r-1's\)"):
        catalogue.create_release(release("r-2", "ctr_v1", folder="releases/r-1"), **ALICE)


@pytest.mark.parametrize("folder", ["", ".", "/etc", "../releases/r-1", "releases/../..", "releases\\r-1"])
def test_folder_lies_inside_the_run(folder: str) -> None:
    with pytest.raises(ValueError, match="folder must lie inside the run"):
        release("r-1", folder=folder)


@pytest.mark.parametrize("name", ["", "r 1", "../r", ".r"])
def test_id_of_a_release_is_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="id of a release must match"):
        release(name, folder="releases/r")


def test_releases_are_listed_by_state(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_release(catalogue, "r-2", "ctr_v1")
    assert [each.id for each in catalogue.releases(states=[ReleaseState.LIVE])] == ["r-1"]
    with pytest.raises(UnknownSubjectError, match=r"one of r-1, r-2 \(got 'r-9'\)"):
        catalogue.release("r-9")


def test_unknown_release_among_many_is_told_the_nearest(file_catalogue: Catalogue) -> None:
    add_release(file_catalogue, "r-77e0c2a94f10", "ctr_v1")
    for number in range(7):
        file_catalogue.create_release(release(f"r-{number}", "ctr_v1"), **ALICE)
    told = r"one of r-77e0c2a94f10 and 7 others \(got 'r-77e0c2a94f11'\)"
    with pytest.raises(UnknownSubjectError, match=told):
        file_catalogue.release("r-77e0c2a94f11")


def test_retired_release_frees_its_versions(catalogue: Catalogue) -> None:
    add_release(catalogue, "r-1", "ctr_v1")
    assert [each.name for each in catalogue.consumers("ctr_v1")] == ["r-1"]
    assert catalogue.retire_release("r-1", **ALICE).state == ReleaseState.RETIRED
    assert catalogue.consumers("ctr_v1") == []


def test_live_and_shadow_releases_are_not_retired(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_release(catalogue, "r-2", "ctr_v1")
    catalogue.shadow("r-2", 0.5, **ALICE)
    with pytest.raises(InUseError, match=r"release r-1 must have no consumers .*pointer live"):
        catalogue.retire_release("r-1", **ALICE)
    with pytest.raises(InUseError, match=r"release r-2 must have no consumers .*pointer shadow"):
        catalogue.retire_release("r-2", **ALICE)
    catalogue.shadow(None, **ALICE)
    catalogue.retire_release("r-2", **ALICE)


def test_release_retired_again_is_told_by_whom(catalogue: Catalogue) -> None:
    add_release(catalogue, "r-1", "ctr_v1")
    catalogue.retire_release("r-1", **ALICE)
    catalogue.retire_release("r-1", **ALICE)
    with pytest.raises(WrongStateError, match=r"\(got retired\): alice@desk"):
        catalogue.retire_release("r-1", **BOB)


def test_version_of_a_release_is_not_forgotten_by_another_catalogue(catalogue: Catalogue, url: URL) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    other = Catalogue(url)
    assert states(other) == {"ctr_v1": "live", "r-1": "live"}
    other.create_version(version("ctr_v2"), **BOB)
    assert catalogue.version("ctr_v2").state == "training"
    other.close()
