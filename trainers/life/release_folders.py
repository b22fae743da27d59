"""Release folders: written aside, named by what is in them, and never changed afterwards."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feature_repo.contract import MANIFEST_FILE
from feature_repo.release.files import sha256_of, verified_manifest
from feature_repo.release.manifest import FORMAT, ReleaseManifest, release_id

ABANDONED_S = 86_400.0
"""Age at which an unfinished folder is one that a killed process left."""


def write_release_folder(
    releases: Path,
    fill: Callable[[Path], Mapping[str, Any]],
    *,
    keep: bool = True,
    check: Callable[[str], object] = str,
) -> ReleaseManifest:
    """Make a release folder; one that holds the same already stays as it is.

    Args:
        releases: Folder of all releases.
        fill: Writes the files into the folder that it is given, and returns the manifest without `format`, `release`,
            `created` and `sha256`.
        keep: Leave the folder there; otherwise only say what would be made.
        check: Told the release's name before the folder gets it; may raise, and then nothing is left.

    Returns:
        The manifest as it lies in the folder named by its `release`.

    Raises:
        ReleaseError: What was written breaks the contract.
    """
    _sweep(releases)
    partial = releases / f".{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        content = fill(partial)
        (partial / MANIFEST_FILE).write_text(json.dumps(whole(content, partial), indent=1, sort_keys=True) + "\n")
        made = verified_manifest(partial)
        check(made.release)
        folder = releases / made.release
        if not keep or folder.exists():
            return verified_manifest(folder) if folder.exists() else made
        _sync(partial)
        partial.rename(folder)
        return made
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sweep(releases: Path) -> None:
    """Remove what killed processes left: nobody is at a release for a day."""
    for folder in releases.glob(".*.partial"):
        with suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)


def whole(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A manifest with what follows from the files in a folder: digests, name, moment."""
    digests = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
    manifest = {"format": FORMAT, "created": datetime.now(UTC).isoformat(), **content, "sha256": digests}
    return {**manifest, "release": release_id(manifest)}


def _sync(folder: Path) -> None:
    """Bring the files to the disk before the folder gets its name: a name must never stand for half a release."""
    for file in (*folder.iterdir(), folder):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
