"""A release may be made with versions that have a space, and with no others."""

from __future__ import annotations

import pytest

from feature_repo.contract import EmbeddingVersion
from feature_repo.release.manifest import ReleaseError
from feature_repo.versions import Catalogue, UnknownSubjectError, VersionRecord
from tests.serving.tiny_run import SPACES
from trainers.life.release_spaces import space_ids


def named(number: int) -> EmbeddingVersion:
    return EmbeddingVersion(model="ctr", version=number, dim=2)


def test_space_ids_are_those_of_the_catalogue(catalogue: Catalogue) -> None:
    assert space_ids(catalogue, [named(1), named(2)]) == {"ctr_v1": SPACES[1], "ctr_v2": SPACES[2]}


def test_version_without_a_space_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownSubjectError, match="ctr_v3"):
        space_ids(catalogue, [named(3)])
    catalogue.create_version(VersionRecord(key="ctr_v3", model="ctr", version=3, dim=2), who="run", why="a test")
    with pytest.raises(ReleaseError, match=r"version ctr_v3 must have a space .* \(it is training\)"):
        space_ids(catalogue, [named(3)])
