"""What versions and releases leave in a run: offline snapshots, upstream folders, markers, and a team's parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnx.parser

from feature_repo.contract import ENTITIES, embedding_view
from tests.serving.tiny_run import HEAD, SPACES
from trainers.markers import Marker, write_marker
from trainers.run_config import RunConfig

RETRAINED = """ctr (float[B, 2] user_dense, float[B, 2] pin_dense) => (float[B] click) {
    first = Constant<value_int = 0>() n = Gather<axis = 1>(user_dense, first) p = Gather<axis = 1>(pin_dense, first)
    click = Sub(n, p) }"""
"""A ranker whose logit is n / 10 - p."""
BY_REQUEST = """ctr (float[R, 2] user_dense, float[B, 2] pin_dense, int64[B] request_row) => (float[B] click) {
    first = Constant<value_int = 0>() n = Gather<axis = 1>(user_dense, first) p = Gather<axis = 1>(pin_dense, first)
    each = Gather<axis = 0>(n, request_row) click = Sub(each, p) }"""
"""The same, with its user once per request."""


def add_files(run: Path) -> None:
    """Options of the run, ten bytes in each place where a version leaves files, and a step that left them all."""
    (run / "run.json").write_text(RunConfig(dataset="synthetic", out=run).to_json())
    offline = run / "feature_repo" / "data" / "offline"
    files = [offline / f"{entity}_activity" / "date=2026-01-10.parquet" for entity in ENTITIES]
    for version in (1, 2):
        views = [embedding_view(entity, "ctr", version) for entity in ENTITIES]
        files += [offline / view / "date=2026-01-10.parquet" for view in views]
        files += [run / "upstream" / f"ctr_v{version}" / "checkpoint.safetensors"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"0123456789")
    left = [str(file.relative_to(run)) for file in [*files, *(run / "releases").rglob("*.*")]]
    marker = Marker(
        step="evaluate", fingerprint="f", inputs={}, files=left, seconds=1.0, peak_mb=1.0, figures={}, finished="now"
    )
    write_marker(run, marker)


def write_parts(parts: Path) -> Path:
    """A downstream team's retrained pctr ranker, and a manifest that says so; gives the folder."""
    parts.mkdir()
    write_program(parts / "retrained.onnx", RETRAINED)
    ranker = {"model": "retrained.onnx", "output": "click", "calibration": {"*": [0.5, 0.0]}}
    write_manifest(parts, embeddings=[version(1)], rankers={"pctr": ranker}, figures={"pctr_roc_auc": 0.8})
    return parts


def version(number: int, **changes: Any) -> dict[str, Any]:
    """An embedding version as a manifest names it."""
    made = {"model": "ctr", "version": number, "dim": 2, "ttl_hours": 72, "space_id": SPACES.get(number, "9" * 12)}
    return made | changes


def write_program(file: Path, text: str) -> None:
    """An ONNX program from its text."""
    onnx.save(onnx.parser.parse_model(HEAD + text), str(file))


def write_manifest(parts: Path, **content: Any) -> None:
    """The manifest of a folder of parts."""
    (parts / "manifest.json").write_text(json.dumps(content))


def edit_manifest(parts: Path, **changes: Any) -> None:
    """Replace keys of the manifest."""
    write_manifest(parts, **(json.loads((parts / "manifest.json").read_text()) | changes))
