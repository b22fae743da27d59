"""Trained models in files: whole or absent, and only for what they were trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainers.evaluation.kept_models import KeptModels


def test_kept_model_comes_back_as_it_was(tmp_path: Path) -> None:
    kept, logits = KeptModels(tmp_path / "models", "f"), np.arange(6, dtype=np.float32).reshape(3, 2)
    assert not kept.has("pctr")
    kept.save("pctr", {"second_column": logits[:, 1], "count": np.array(7)}, {"epoch": 2})
    arrays, notes = kept.load("pctr")
    assert (arrays["second_column"].tolist(), int(arrays["count"]), notes) == ([1.0, 3.0, 5.0], 7, {"epoch": 2})
    assert [file.name for file in kept.folder.iterdir()] == ["pctr.safetensors"]


def test_kept_model_does_not_count_where_anything_it_follows_from_is_another(tmp_path: Path) -> None:
    kept = KeptModels(tmp_path, "f")
    kept.save("pctr", {"weight": np.ones(1)}, {})
    assert kept.has("pctr")
    assert not KeptModels(tmp_path, "g").has("pctr")
    assert not kept.has("pcvr")


def test_model_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    (tmp_path / ".pctr.safetensors.partial").write_bytes(b"half")
    assert not KeptModels(tmp_path, "f").has("pctr")
