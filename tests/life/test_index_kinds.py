"""Which index a corpus gets, and that the smaller part of it finds what an exact search finds."""

from __future__ import annotations

import faiss
import numpy as np
import numpy.typing as npt

from serving.fresh_pins import _bias
from trainers.life.index_kinds import LEAST_RECALL, make_index, recall


def clustered(count: int, width: int, num_clusters: int) -> npt.NDArray[np.float32]:
    """Unit vectors around a few centres, each with a last element as popularity would be."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((num_clusters, width), np.float32)
    vectors = centres[random.integers(num_clusters, size=count)]
    vectors = vectors + 0.3 * random.standard_normal((count, width), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.hstack([vectors, -0.1 * random.random((count, 1), np.float32)]).astype(np.float32)


def test_small_corpus_is_searched_exactly() -> None:
    index = make_index(clustered(100, 4, 3), np.arange(100))
    assert isinstance(index, faiss.IndexIDMap2)
    assert index.ntotal == 100


def test_large_corpus_is_searched_in_parts_that_find_the_same() -> None:
    vectors, keys = clustered(20_000, 16, 200), 3 * np.arange(20_000)
    index, exact = make_index(vectors, keys, exact_up_to=1000), make_index(vectors, keys)
    assert isinstance(index, faiss.IndexIVFFlat)
    assert index.nprobe < index.nlist / 2
    queries = np.ascontiguousarray(vectors[:64])
    queries[:, -1] = 1.0
    assert recall(index, exact, queries) >= LEAST_RECALL - 0.01


def test_corpus_of_which_no_part_is_enough_is_searched_exactly() -> None:
    """Vectors without any structure in many dimensions have their neighbours everywhere."""
    random = np.random.default_rng(1)
    vectors = random.standard_normal((3000, 65)).astype(np.float32)
    assert isinstance(make_index(vectors, np.arange(3000), exact_up_to=1000), faiss.IndexIDMap2)


def test_popularity_is_read_from_the_parts_too() -> None:
    vectors, keys = clustered(5000, 8, 50), 2 * np.arange(5000)
    index = make_index(vectors, keys, exact_up_to=1000)
    assert isinstance(index, faiss.IndexIVFFlat)
    bias = _bias(index)
    assert bias is not None
    assert bias(np.array([0, 10, 11])).tolist() == [vectors[0, -1], vectors[5, -1], vectors[:, -1].min()]
