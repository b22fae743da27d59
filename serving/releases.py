"""A loaded release: everything that must agree to answer one request, immutable while it serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.artifacts import ReleaseManifest, load_manifest, verify_files
from serving.ranker import Ranker, load_ranker
from serving.retriever import Retriever, load_retriever


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """Manifest and models of one release."""

    manifest: ReleaseManifest
    retriever: Retriever
    ranker: Ranker

    @property
    def embeddings(self) -> list[str]:
        """Short names of the embedding versions, such as `ctr_v1`."""
        return [version.key for version in self.manifest.embeddings]


def load_release(directory: Path, threads: int) -> Release:
    """Verify and load the release in a folder.

    Raises:
        ReleaseError: A file is absent, changed, or disagrees with the manifest; the text names it.
    """
    manifest = load_manifest(directory)
    verify_files(directory, manifest)
    return Release(
        manifest=manifest,
        retriever=load_retriever(directory, manifest, threads),
        ranker=load_ranker(directory, manifest, threads),
    )
