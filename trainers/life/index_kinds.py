"""Which faiss index a release gets: an exact one, or for large corpora one that looks at a part of the Pins.

A part is enough when it finds what an exact search finds. How large it must be depends on the vectors, so it is
measured on the Pins themselves when the index is made, and kept in it; where no reasonable part is enough, the index is
exact.

Dims: P Pins, E width of a vector.
"""

from __future__ import annotations

import logging
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

Keys = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

EXACT_UP_TO = 200_000
"""Pins up to which every one is compared."""
LEAST_RECALL = 0.995
"""Share of an exact search's Pins that must be found, on average over the sample; above the goal of 0.99, for a sample
errs."""
DEPTH, DEEPEST_SHARE = 500, 1 / 400
"""Pins of one search, and the share of the corpus that they are at most."""
SAMPLE = 256
"""Searches that recall is measured with."""
MOST_PROBED = 0.25
"""Share of the lists from which on an exact search is the better one."""
_TRAINED_ON = 64
"""Pins per list that its centre is learned from."""


def make_index(vectors: Vectors, pin_ids: Keys, *, exact_up_to: int = EXACT_UP_TO) -> Any:
    """An index by inner product over vectors [P, E] whose ids are the Pins' keys."""
    if len(vectors) > exact_up_to:
        partial = _partial(vectors, pin_ids)
        if partial is not None:
            return partial
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(np.ascontiguousarray(vectors), pin_ids)
    return index


def recall(index: Any, exact: Any, queries: Vectors, depth: int = DEPTH) -> float:
    """Mean share of an exact search's Pins that an index finds."""
    depth = min(depth, max(1, int(exact.ntotal * DEEPEST_SHARE)))
    wanted, found = exact.search(queries, depth)[1], index.search(queries, depth)[1]
    return float(np.mean([len(np.intersect1d(a, b)) / depth for a, b in zip(wanted, found, strict=True)]))


def _partial(vectors: Vectors, pin_ids: Keys) -> Any:
    """An inverted file that looks at as few lists as give the recall; None if it would have to look at too many."""
    width, num_lists = vectors.shape[1], 1 << round(np.log2(np.sqrt(len(vectors))))
    quantizer = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFFlat(quantizer, width, num_lists, faiss.METRIC_INNER_PRODUCT)
    random = np.random.default_rng(0)
    taught = random.choice(len(vectors), min(len(vectors), num_lists * _TRAINED_ON), replace=False)
    index.train(np.ascontiguousarray(vectors[taught]))
    index.add_with_ids(np.ascontiguousarray(vectors), pin_ids)
    queries = _queries(vectors, random)
    exact = faiss.IndexIDMap2(faiss.IndexFlatIP(width))
    exact.add_with_ids(np.ascontiguousarray(vectors), pin_ids)
    probed = 4
    while probed <= MOST_PROBED * num_lists:
        index.nprobe = probed
        if (found := recall(index, exact, queries)) >= LEAST_RECALL:
            logger.info("event=index_made lists=%d probed=%d recall=%.4f", num_lists, probed, found)
            return index
        probed *= 2
    logger.info("event=index_made pins=%d lists=0 reason=no_part_is_enough", len(vectors))
    return None


def _queries(vectors: Vectors, random: np.random.Generator) -> Vectors:
    """Queries near Pins: their vectors, with a little noise, and the 1 that meets a Pin's popularity."""
    chosen = vectors[random.choice(len(vectors), SAMPLE)].copy()
    width = chosen.shape[1] - 1
    chosen[:, :width] += random.standard_normal((SAMPLE, width), np.float32) * np.float32(0.5 / np.sqrt(width))
    chosen[:, :width] /= np.linalg.norm(chosen[:, :width], axis=1, keepdims=True) + 1e-12
    chosen[:, width] = 1.0
    return np.ascontiguousarray(chosen)
