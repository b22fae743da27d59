"""Movement of embeddings from day to day, by hand."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.feature_repo.repos import MANIFEST
from trainers.report.drift import drift_days


def write(offline: Path, day: str, vectors: dict[int, list[float]]) -> None:
    folder = offline / "pin_embedding_ctr_v1"
    folder.mkdir(parents=True, exist_ok=True)
    rows = pa.table({"pin_id": list(vectors), "embedding": pa.array(list(vectors.values()), pa.list_(pa.float32()))})
    pq.write_table(rows, folder / f"date={day}.parquet")


def test_drift_is_the_cosine_of_entities_in_both_snapshots(tmp_path: Path) -> None:
    write(tmp_path, "2024-03-01", {1: [1.0, 0.0], 2: [0.0, 2.0], 9: [1.0, 1.0]})
    write(tmp_path, "2024-03-02", {2: [0.0, 3.0], 1: [0.6, 0.8], 5: [1.0, 0.0]})
    (found,) = drift_days(tmp_path, MANIFEST)
    assert (found.day, found.num_vectors, found.num_new) == (date(2024, 3, 2), 3, 1)
    assert found.cosine == pytest.approx((0.6 + 1.0) / 2)
    assert found.low_cosine == pytest.approx(0.6 + 0.1 * 0.4)
