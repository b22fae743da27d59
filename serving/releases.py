"""A loaded release: everything that must agree to answer one request, immutable while it serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feature_repo.release.files import verified_manifest
from feature_repo.release.manifest import ReleaseManifest
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


def load_release(
    directory: Path, threads: int, manifest_sha256: str | None = None, cache: Path | None = None
) -> Release:
    """Verify and load the release in a folder.

    Args:
        threads: That one ONNX session may use within an operator.
        manifest_sha256: Digest of the manifest in the catalogue; unchecked when not given.
        cache: Folder of the copies of indexes that are mapped into memory.

    Raises:
        ReleaseError: A file is absent, changed, or disagrees with the manifest; the text names it.
    """
    manifest = verified_manifest(directory, manifest_sha256)
    return Release(
        manifest=manifest,
        retriever=load_retriever(directory, manifest, threads, cache),
        ranker=load_ranker(directory, manifest, threads),
    )
