"""First stage: the Pins whose candidate vectors lie nearest to the user's query vector."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from feature_repo.encoding import Array, InputSpec, encode
from feature_repo.release.manifest import ReleaseError, ReleaseManifest
from serving.fresh_pins import FreshVectors, merged
from serving.monitoring.request import stage
from serving.onnx_model import OnnxModel, load_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Retriever:
    """Query tower and Pin index of one release."""

    tower: OnnxModel
    encoder: InputSpec
    index: Any
    """faiss index; its ids are Pin ids."""

    def query(self, user: pa.Table) -> Array:
        """Query vectors, float32 [N, dim], of user rows."""
        return self.tower.run(encode(self.encoder, user))

    def retrieve(
        self, user: pa.Table, count: int, exclude: Collection[int], fresh: FreshVectors | None = None
    ) -> list[int]:
        """Up to `count` Pin ids for one user row, highest inner product first, without the excluded ones.

        Args:
            fresh: Pins that were pushed after the index was made.
        """
        num_fresh = 0 if fresh is None else len(fresh.pin_ids)
        wanted = min(count + len(exclude) + num_fresh, int(self.index.ntotal))
        query = np.ascontiguousarray(self.query(user))
        with stage("index"):
            scores, found = self.index.search(query, wanted)
        ordered = merged(found[0], scores[0], fresh, fresh.scores(query)) if fresh and num_fresh else found[0].tolist()
        dropped = set(exclude)
        return [pin for pin in ordered if pin >= 0 and pin not in dropped][:count]


def load_retriever(directory: Path, manifest: ReleaseManifest, threads: int) -> Retriever:
    """Load query tower and index.

    Raises:
        ReleaseError: The index has another width or number of Pins than the manifest says.
    """
    artifact = manifest.retrieval
    index = faiss.read_index(str(directory / artifact.index))
    if (index.d, index.ntotal) != (artifact.dim, artifact.num_pins):
        raise ReleaseError(
            f"{directory / artifact.index} must hold {artifact.num_pins} vectors of width {artifact.dim} "
            f"(got {index.ntotal} of width {index.d}); export the release again"
        )
    tower = load_model(directory / artifact.model, artifact.output, threads)
    return Retriever(tower=tower, encoder=manifest.encoders.query_user, index=index)
