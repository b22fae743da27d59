"""A tiny real release: ONNX programs with hand-workable logits, a faiss index and an applied Feast repo.

At `NOW` user 1 is present in every view, user 2 is outside max age in every view with a TTL and user 3 has old
activity, present attributes and no embedding. Pin 106 is indexed but unknown online. With price `p`, impressions `n`
of the user, vectors `u` and `v`, and the surface's index `s` (1 or 2): pctr logit = p + n / 10, pcvr logit = u.v + s.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import onnx.parser
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from feature_repo import contract
from feature_repo.encoding import CategoricalInput, DenseInput, InputSpec, VectorInput
from feature_repo.layout import apply, create_repo, open_store
from serving.app import create_app
from serving.artifacts import sha256_of
from serving.settings import Settings

NOW = datetime(2026, 1, 10, tzinfo=UTC)
VECTORS = {101: (1.0, 0.0), 102: (0.8, 0.6), 103: (0.0, 1.0), 104: (-1.0, 0.0), 105: (0.1, 1.0), 106: (0.5, 0.0)}
PRICES = {101: 0.0, 102: 2.0, 103: 1.0, 104: -1.0, 105: 1.0}
EMBEDDING = contract.EmbeddingVersion(model="ctr", version=1, dim=2, ttl_hours=72)
REPO = contract.RepoManifest(
    dataset="tiny",
    labels=("click",),
    conversions=(),
    windows_days=(7,),
    sequence_length=3,
    user_attributes=(contract.AttributeField(name="segment", kind="categorical", type="string"),),
    pin_attributes=(
        contract.AttributeField(name="title", kind="categorical", type="string"),
        contract.AttributeField(name="price", kind="dense", type="float"),
    ),
    embeddings=(EMBEDDING,),
)
HEAD = '<ir_version: 9, opset_import: ["" : 17]>'
PROGRAMS = {
    "query_tower.onnx": """query (float[B, 3] user_vector_0) => (float[B, 2] query) {
        from = Constant<value_ints = [0]>() to = Constant<value_ints = [2]>() axis = Constant<value_ints = [1]>()
        query = Slice(user_vector_0, from, to, axis) }""",
    "ctr.onnx": """ctr (float[B, 2] user_dense, float[B, 2] pin_dense) => (float[B] click) {
        first = Constant<value_int = 0>() n = Gather<axis = 1>(user_dense, first) p = Gather<axis = 1>(pin_dense, first)
        click = Add(n, p) }""",
    "cvr.onnx": """cvr (float[B, 3] user_vector_0, float[B, 3] pin_vector_0, int64[B, 1] context_categorical)
        => (float[B] purchase) {
        from = Constant<value_ints = [0]>() to = Constant<value_ints = [2]>() axis = Constant<value_ints = [1]>()
        first = Constant<value_int = 0>() u = Slice(user_vector_0, from, to, axis)
        v = Slice(pin_vector_0, from, to, axis) uv = Mul(u, v) dot = ReduceSum<keepdims = 0>(uv, axis)
        index = Gather<axis = 1>(context_categorical, first) s = Cast<to = 1>(index) purchase = Add(dot, s) }""",
}


def _dense(column: str, scale: float) -> tuple[DenseInput, ...]:
    return (DenseInput(column=column, log=False, mean=0.0, scale=scale),)


def _vectors(entity: str) -> tuple[VectorInput, ...]:
    return (VectorInput(column=f"{entity}_embedding_ctr_v1__embedding", dim=2),)


ENCODERS = {
    "query.user": InputSpec(side="user", vectors=_vectors("user")),
    "ranking.user": InputSpec(
        side="user", dense=_dense("user_activity__impressions_ever", 10.0), vectors=_vectors("user")
    ),
    "ranking.pin": InputSpec(side="pin", dense=_dense("pin_attributes__price", 1.0), vectors=_vectors("pin")),
    "ranking.context": InputSpec(
        side="context", categorical=(CategoricalInput(column="surface", vocabulary=("0", "1")),)
    ),
}


def _activity(entity: str, keys: list[int], hours_old: list[int], impressions: list[int]) -> pd.DataFrame:
    frame = _keyed(entity, keys, hours_old)
    empty: dict[str, Any] = {"int64": 0, "float": 0.5}
    for name, kind in contract.activity_fields(REPO, entity).items():
        frame[name] = [empty.get(kind, []) for _ in keys]
    return frame.assign(impressions_ever=impressions)


def _keyed(entity: str, keys: list[int], hours_old: list[int]) -> pd.DataFrame:
    stamps = [NOW - timedelta(hours=hours) for hours in hours_old]
    return pd.DataFrame({f"{entity}_id": keys, "event_timestamp": stamps, "created_timestamp": NOW})


def _embeddings(entity: str, vectors: dict[int, tuple[float, float]], hours_old: list[int]) -> pd.DataFrame:
    stored: Any = [np.array(vector, np.float32) for vector in vectors.values()]
    return _keyed(entity, list(vectors), hours_old).assign(embedding=stored, data_cutoff=NOW)


def _write_features(repo_dir: Path) -> None:
    store = open_store(repo_dir)
    pins = list(PRICES)
    attributes = _keyed("pin", pins, [500] * len(pins))
    titles = [f"Pin {pin}" for pin in pins]
    frames = {
        "user_activity": _activity("user", [1, 2, 3], [1, 100, 100], [10, 20, 30]),
        "user_attributes": _keyed("user", [1, 3], [500, 500]).assign(segment=["a", "b"]),
        "user_embedding_ctr_v1": _embeddings("user", {1: (1.0, 0.0), 2: (0.0, 1.0)}, [1, 100]),
        "pin_activity": _activity("pin", pins[:4], [1, 1, 1, 100], [5, 5, 5, 5]),
        "pin_attributes": attributes.assign(title=titles, price=list(PRICES.values())),
        "pin_embedding_ctr_v1": _embeddings("pin", {pin: VECTORS[pin] for pin in pins}, [1] * len(pins)),
    }
    for view, frame in frames.items():
        store.write_to_online_store(view, frame)


def _write_models(directory: Path) -> None:
    for name, text in PROGRAMS.items():
        onnx.save(onnx.parser.parse_model(HEAD + text), str(directory / name))
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(2))
    index.add_with_ids(np.array(list(VECTORS.values()), np.float32), np.array(list(VECTORS), np.int64))
    faiss.write_index(index, str(directory / "pins.faiss"))


def _manifest(directory: Path) -> dict[str, Any]:
    files = [*PROGRAMS, "pins.faiss"]
    return {
        "format": 1,
        "release": "tiny-1",
        "dataset": "tiny",
        "commit": "0000000",
        "seed": 7,
        "created": (NOW + timedelta(hours=2)).isoformat(),
        "data_cutoff": (NOW - timedelta(hours=24)).isoformat(),
        "embeddings": [{"model": "ctr", "version": 1, "dim": 2, "ttl_hours": 72}],
        "surfaces": ["0", "1"],
        "pin_title": "title",
        "services": {"retrieval": "retrieval__ctr_v1", "ranking": "ranking__ctr_v1"},
        "encoders": {name: spec.to_dict() for name, spec in ENCODERS.items()},
        "retrieval": {
            "model": "query_tower.onnx",
            "output": "query",
            "index": "pins.faiss",
            "dim": 2,
            "num_pins": len(VECTORS),
        },
        "rankers": {
            "pctr": {"model": "ctr.onnx", "output": "click", "calibration": {"1": [2.0, 0.5], "*": [1.0, 0.0]}},
            "pcvr": {"model": "cvr.onnx", "output": "purchase", "calibration": {}},
        },
        "popular": {"1": [104, 102], "*": [103, 102]},
        "sha256": {name: sha256_of(directory / name) for name in files},
    }


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a release and an online store; not to be changed."""
    run = tmp_path_factory.mktemp("run")
    create_repo(run / "feature_repo", REPO)
    apply(run / "feature_repo")
    _write_features(run / "feature_repo")
    (run / "release").mkdir()
    _write_models(run / "release")
    (run / "release" / "manifest.json").write_text(json.dumps(_manifest(run / "release")))
    return run


@pytest.fixture
def release_dir(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the release, to be changed."""
    return Path(shutil.copytree(tiny_run / "release", tmp_path / "release"))


@pytest.fixture
def edit_manifest(release_dir: Path) -> Callable[..., Path]:
    """Replace top-level keys of the copied release's manifest; gives the release's folder."""

    def edit(**changes: Any) -> Path:
        path = release_dir / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return release_dir

    return edit


@pytest.fixture(scope="session")
def settings(tiny_run: Path) -> Settings:
    """Settings of a server whose clock stands at `NOW`."""
    return Settings(run=tiny_run, as_of=NOW, threads=1)


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[TestClient]:
    """A ready server."""
    with TestClient(create_app(settings)) as ready:
        yield ready
