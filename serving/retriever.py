"""First stage: the Pins whose candidate vectors lie nearest to the user's query vector, or to another Pin's.

Dims: E width of the index's vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.encoding import Array, Encoder
from feature_repo.release.files import sha256_of
from feature_repo.release.manifest import ReleaseError, ReleaseManifest
from serving.fresh_pins import FreshVectors, merged
from serving.index_copies import IndexCopy, default_folder, index_copy
from serving.monitoring.request import stage
from serving.onnx_model import OnnxModel, load_model

logger = logging.getLogger(__name__)

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Pins that an index gave, highest score first."""

    pin_ids: Keys
    scores: Array
    """Inner products, float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retriever:
    """Query tower and Pin index of one release."""

    tower: OnnxModel
    encoder: Encoder
    index: Any
    """faiss index; its ids are Pin ids."""
    copy: IndexCopy | None = None
    """What of it is mapped into memory; none where all of it was read."""

    def query(self, user: pa.Table) -> Array:
        """Query vectors, float32 [N, E], of user rows."""
        return self.tower.run(self.encoder(user))

    def search(self, query: Array, count: int, exclude: Collection[int], fresh: FreshVectors | None = None) -> Found:
        """Up to `count` Pins for one query [1, E], highest inner product first, without the excluded ones.

        Args:
            fresh: Pins that were pushed after the index was made.
        """
        num_fresh = 0 if fresh is None else len(fresh.pin_ids)
        wanted = min(count + len(exclude) + num_fresh, int(self.index.ntotal))
        query = np.ascontiguousarray(query)
        with stage("index"):
            (scores,), (pin_ids,) = self.index.search(query, wanted)
        if fresh is not None and num_fresh:
            pin_ids, scores = merged(pin_ids, scores, fresh, fresh.scores(query))
        kept = pin_ids >= 0
        if exclude:
            kept &= ~np.isin(pin_ids, np.fromiter(exclude, np.int64, len(exclude)))
        return Found(pin_ids=pin_ids[kept][:count], scores=scores[kept][:count])

    def retrieve(
        self, user: pa.Table, count: int, exclude: Collection[int], fresh: FreshVectors | None = None
    ) -> Found:
        """`search` for one user row."""
        return self.search(self.query(user), count, exclude, fresh)

    def vector(self, pin_id: int, fresh: FreshVectors | None = None) -> Array | None:
        """What the index holds of a Pin, float32 [E]; none of one that neither it nor `fresh` has."""
        if fresh is not None and len(places := np.flatnonzero(fresh.pin_ids == pin_id)):
            return np.asarray(fresh.vectors[places[0]])
        try:
            return np.asarray(self.index.reconstruct(pin_id))
        except RuntimeError:
            return None

    def similar(
        self, pin_id: int, count: int, exclude: Collection[int], fresh: FreshVectors | None = None
    ) -> Found | None:
        """Pins nearest to a Pin, its popularity and theirs left out of account; none for one without a vector."""
        vector = self.vector(pin_id, fresh)
        if vector is None:
            return None
        query = vector[None, :].copy()
        query[0, -1] = 0.0
        return self.search(query, count, {*exclude, pin_id}, fresh)


def load_retriever(directory: Path, manifest: ReleaseManifest, threads: int, cache: Path | None = None) -> Retriever:
    """Load query tower and index.

    Args:
        cache: Folder of the index's copy.

    Raises:
        ReleaseError: A file changed, or the index has another width or number of Pins than the manifest says.
    """
    artifact = manifest.retrieval
    path = directory / artifact.index
    index, copy = _index(path, manifest.sha256[artifact.index], cache or default_folder())
    if (index.d, index.ntotal) != (artifact.dim, artifact.num_pins):
        raise ReleaseError(
            f"{path} must hold {artifact.num_pins} vectors of width {artifact.dim} "
            f"(got {index.ntotal} of width {index.d}); export the release again"
        )
    tower = load_model(directory / artifact.model, artifact.output, threads, manifest.sha256[artifact.model])
    return Retriever(tower=tower, encoder=Encoder(manifest.encoders.query_user), index=index, copy=copy)


def _index(path: Path, sha256: str, cache: Path) -> tuple[Any, IndexCopy | None]:
    """The index, mapped; read as a whole where it cannot be copied, for then nothing keeps the mapped file whole."""
    try:
        copy: IndexCopy | None = index_copy(path, sha256, cache)
    except OSError as error:
        logger.warning("event=index_not_mapped file=%s reason=%s", path, error)
        copy = None
    try:
        index = faiss.read_index(str(copy.path if copy else path), faiss.IO_FLAG_MMAP_IFC if copy else 0)
    except RuntimeError as error:
        raise ReleaseError(f"{path} must be a faiss index (got: {error}); export the release again") from error
    if copy is None and (got := sha256_of(path)) != sha256:
        raise ReleaseError(f"{path} must have sha256 {sha256} (got {got}); restore it or create the release again")
    if isinstance(index, faiss.IndexIVF):
        index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]
    return index, copy
