"""A version's feature views, registered with Feast beside those that are there."""

from __future__ import annotations

import dataclasses
from contextlib import redirect_stdout
from io import StringIO

from feature_repo.contract import MANIFEST_FILE, EmbeddingVersion, write_atomically
from feature_repo.layout import apply
from trainers.life.consumers import record_consumers
from trainers.life.home import Home


def register(home: Home, version: EmbeddingVersion) -> None:
    """Add a version to the repo's manifest and apply it; repeated, it changes nothing."""
    manifest = home.manifest()
    if version not in manifest.embeddings:
        embeddings = tuple(sorted((*manifest.embeddings, version), key=lambda each: (each.model, each.version)))
        text = dataclasses.replace(manifest, embeddings=embeddings).to_json()
        write_atomically(home.repo_dir / "data" / MANIFEST_FILE, text)
    with redirect_stdout(StringIO()):
        apply(home.repo_dir)
    record_consumers(home.catalogue, home.repo_dir)
