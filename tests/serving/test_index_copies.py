"""Copies of indexes that servers map: verified, shared, safe from what happens to the release's file."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path

import faiss
import numpy as np
import pytest

from feature_repo.release.manifest import ReleaseError
from serving.index_copies import index_copy


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "pins.faiss"
    file.write_bytes(b"one index")
    return file


def test_copy_is_made_once_for_all_that_hold_it(source: Path, tmp_path: Path) -> None:
    first = index_copy(source, digest(b"one index"), tmp_path / "cache")
    source.unlink()
    second = index_copy(source, digest(b"one index"), tmp_path / "cache")
    assert first.path == second.path
    assert first.path.read_bytes() == b"one index"


def test_copy_that_was_changed_is_made_again(source: Path, tmp_path: Path) -> None:
    wanted = digest(b"one index")
    path = index_copy(source, wanted, tmp_path / "cache").path
    path.chmod(0o600)
    path.write_bytes(b"another")
    assert index_copy(source, wanted, tmp_path / "cache").path.read_bytes() == b"one index"


def test_file_with_another_digest_is_refused_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"pins\.faiss must have sha256"):
        index_copy(source, digest(b"what it should be"), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_copy_is_removed_by_a_later_load_once_nobody_holds_it(source: Path, tmp_path: Path) -> None:
    held = index_copy(source, digest(b"one index"), tmp_path / "cache")
    other = tmp_path / "other.faiss"
    other.write_bytes(b"two")
    index_copy(other, digest(b"two"), tmp_path / "cache")
    assert held.path.exists()
    path = held.path
    del held
    gc.collect()
    third = tmp_path / "third.faiss"
    third.write_bytes(b"three")
    index_copy(third, digest(b"three"), tmp_path / "cache")
    assert not path.exists()


def test_mapped_copy_answers_after_the_release_file_was_truncated(tmp_path: Path) -> None:
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(2))
    vectors = np.random.default_rng(0).random((50_000, 2), np.float32)
    index.add_with_ids(vectors, np.arange(50_000))
    file = tmp_path / "pins.faiss"
    faiss.write_index(index, str(file))
    held = index_copy(file, digest(file.read_bytes()), tmp_path / "cache")
    mapped = faiss.read_index(str(held.path), faiss.IO_FLAG_MMAP_IFC)
    file.write_bytes(b"")
    assert mapped.search(vectors[:1], 5)[1].tolist() == index.search(vectors[:1], 5)[1].tolist()
