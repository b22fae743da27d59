"""The files of a release: whole, unchanged, and those that its manifest names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from feature_repo.contract import MANIFEST_FILE
from feature_repo.release.manifest import ReleaseError, ReleaseManifest, load_manifest

RELEASES = "releases"
"""Folder of a run that holds a folder per release."""


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_files(directory: Path, manifest: ReleaseManifest) -> None:
    """Pass when every file of the release is there and unchanged.

    Raises:
        ReleaseError: The first file that is absent or whose sha256 differs.
    """
    for name, expected in sorted(manifest.sha256.items()):
        path = directory / name
        if not path.is_file():
            raise ReleaseError(f"{path} must exist (named in {MANIFEST_FILE}); restore it or create the release again")
        if (got := sha256_of(path)) != expected:
            raise ReleaseError(
                f"{path} must have sha256 {expected} (got {got}); restore it or create the release again"
            )


def verified_manifest(directory: Path, manifest_sha256: str | None = None) -> ReleaseManifest:
    """The manifest of a release whose files are all there and unchanged.

    Args:
        manifest_sha256: Digest that the catalogue has for the manifest; unchecked when not given.

    Raises:
        ReleaseError: A file, or the manifest itself, is absent or changed.
    """
    manifest = load_manifest(directory)
    path = directory / MANIFEST_FILE
    if manifest_sha256 is not None and (got := sha256_of(path)) != manifest_sha256:
        raise ReleaseError(
            f"{path} must have the sha256 that the catalogue recorded, {manifest_sha256} (got {got}); "
            "restore it or create the release again"
        )
    verify_files(directory, manifest)
    return manifest
