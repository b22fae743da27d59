"""Pins that were pushed after a release's index was made: searched exactly, beside the index, from the next request on.

Dims: M pushed Pins, E width of the index's vectors.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from feature_repo.encoding import Array, encode
from feature_repo.push.ledger import ledger_stamp, pins_since
from feature_repo.release.manifest import ReleaseManifest
from serving.clock import Clock
from serving.online_features import EntityFeatures
from serving.onnx_model import OnnxModel, load_model

logger = logging.getLogger(__name__)

MOST = 10_000
"""Pins that are kept beside an index; earlier pushed ones wait for the next index."""

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class FreshVectors:
    """Vectors of Pins that take the place of the index's, or are added to it."""

    pin_ids: Keys
    """Keys [M]."""
    vectors: Array
    """As the index holds them, float32 [M, E]."""

    def scores(self, query: Array) -> Array:
        """Inner products [M] with one query [1, E]."""
        found: Array = self.vectors @ query[0]
        return found


class FreshPins:
    """Pushed Pins of one release; read again when one was pushed since."""

    def __init__(
        self, directory: Path, data_dir: Path, manifest: ReleaseManifest, index: Any, pins: EntityFeatures, clock: Clock
    ) -> None:
        self._directory, self._data_dir, self._manifest = directory, data_dir, manifest
        self._index, self._pins, self._clock = index, pins, clock
        self._tower: OnnxModel | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._vectors = _none(manifest)
        self._reading = threading.Lock()

    def now(self) -> FreshVectors:
        """Vectors of what was pushed until now; while another request reads them, those of before."""
        stamp = ledger_stamp(self._data_dir)
        if stamp != self._stamp and self._reading.acquire(blocking=False):
            try:
                self._vectors = self._read()
                self._stamp = stamp
            finally:
                self._reading.release()
        return self._vectors

    def _read(self) -> FreshVectors:
        """The release's own candidate tower over the Pins' features as they are online now."""
        manifest, encoder = self._manifest, self._manifest.encoders.candidate_pin
        pushed = pins_since(self._data_dir, manifest.data_cutoff, MOST)
        known = set(encoder.columns()) <= self._pins.columns
        bias = _bias(self._index)
        if not pushed or not known or bias is None:
            return _none(manifest)
        candidates = self._candidates(encode(encoder, self._pins.read(pushed, self._clock()).features))
        keys = np.array(pushed, np.int64)
        vectors = np.concatenate([candidates, bias(keys)[:, None]], axis=1).astype(np.float32)
        finite = np.isfinite(vectors).all(axis=1)
        logger.info("event=fresh_pins release=%s pins=%d", manifest.release, int(finite.sum()))
        return FreshVectors(pin_ids=keys[finite], vectors=vectors[finite])

    def _candidates(self, inputs: dict[str, Array]) -> Array:
        if self._tower is None:
            artifact = self._manifest.retrieval
            file, digest = self._directory / artifact.candidate_model, self._manifest.sha256[artifact.candidate_model]
            self._tower = load_model(file, artifact.candidate_output, threads=1, sha256=digest)
        return self._tower.run(inputs)


def merged(found: Keys, scores: Array, fresh: FreshVectors, fresh_scores: Array) -> tuple[Keys, Array]:
    """Pins of an index and pushed ones with their scores, highest first; a pushed one takes the place of the index's.

    Args:
        found: Pin ids that the index found, -1 where it has no more.
        scores: Their scores.
    """
    kept = (found >= 0) & ~np.isin(found, fresh.pin_ids)
    ids = np.concatenate([found[kept], fresh.pin_ids])
    both = np.concatenate([scores[kept], fresh_scores])
    order = np.argsort(-both, kind="stable")
    return ids[order], both[order]


def _none(manifest: ReleaseManifest) -> FreshVectors:
    return FreshVectors(pin_ids=np.empty(0, np.int64), vectors=np.empty((0, manifest.retrieval.dim), np.float32))


class _Bias:
    """Last element of a Pin's vector, its popularity: the index's own, for a Pin that it lacks the least there is."""

    def __init__(self, keys: Keys, popularity: Array) -> None:
        self._order = np.argsort(keys)
        self._keys, self._popularity = keys, popularity

    def __call__(self, pins: Keys) -> Array:
        """Of each Pin [M]."""
        places = self._order[np.searchsorted(self._keys, pins, sorter=self._order).clip(max=len(self._keys) - 1)]
        own = self._popularity[places]
        found: Array = np.where(self._keys[places] == pins, own, self._popularity.min())
        return found


def _bias(index: Any) -> _Bias | None:
    """Of an exact index with keys, or an inverted file; none of another, which does not give its vectors back."""
    if isinstance(index, faiss.IndexIVFFlat) and index.ntotal:
        return _bias_of_lists(index)
    flat = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap2) else None
    if not isinstance(flat, faiss.IndexFlat) or index.ntotal == 0:
        return None
    # A view, not a copy: the index may be large.
    stored = faiss.rev_swig_ptr(flat.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    return _Bias(faiss.vector_to_array(index.id_map), stored[:, -1].copy())


def _bias_of_lists(index: Any) -> _Bias:
    """Of an inverted file, list by list: ids and vectors lie there as they were added."""
    keys, popularity = [], []
    lists = index.invlists
    for number in range(index.nlist):
        size = lists.list_size(number)
        if size:
            codes = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
            keys.append(faiss.rev_swig_ptr(lists.get_ids(number), size).copy())
            popularity.append(codes.view(np.float32).reshape(size, -1)[:, -1].copy())
    return _Bias(np.concatenate(keys), np.concatenate(popularity))
