"""Which space the vectors of an embedding version are in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from feature_repo.contract import EmbeddingVersion
from feature_repo.release.manifest import ReleaseError

if TYPE_CHECKING:
    from feature_repo.versions import Catalogue


def space_ids(catalogue: Catalogue, versions: Iterable[EmbeddingVersion]) -> dict[str, str]:
    """Space id by version key, as the catalogue has it.

    Raises:
        UnknownSubjectError: A version is not in the catalogue.
        ReleaseError: A version has no space yet.
    """
    found: dict[str, str] = {}
    for version in versions:
        record = catalogue.version(version.key)
        if record.space_id is None:
            raise ReleaseError(
                f"version {version.key} must have a space before a release can be made with it (it is {record.state}); "
                "finish its training first"
            )
        found[version.key] = record.space_id
    return found
