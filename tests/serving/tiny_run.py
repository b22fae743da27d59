"""Tiny real releases: ONNX programs with hand-workable logits, a faiss index, an applied Feast repo, a catalogue.

At `NOW` user 1 is present in every view, user 2 is outside max age in every view with a TTL and user 3 has old
activity, present attributes and no embedding. Pin 106 is indexed but unknown online. With price `p`, impressions `n`
of the user, vectors `u` and `v`, and the surface's index `s` (1 or 2): pctr logit = p + n / 10, pcvr logit = u.v + s.

Release `tiny-1`, which is live, reads embedding version 1. `tiny-2` reads version 2, whose vectors are those of version
1 turned by a quarter: u.v is the same within a version and another across two. On surface 0 its pctr logit is one more.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import onnx.parser
import pandas as pd

from feature_repo import contract
from feature_repo.encoding import CategoricalInput, DenseInput, InputSpec, VectorInput
from feature_repo.layout import apply, create_repo, open_store
from feature_repo.release.files import sha256_of
from feature_repo.versions import Catalogue, ReleaseRecord, VersionRecord, VersionState

NOW = datetime(2026, 1, 10, tzinfo=UTC)
VECTORS = {101: (1.0, 0.0), 102: (0.8, 0.6), 103: (0.0, 1.0), 104: (-1.0, 0.0), 105: (0.1, 1.0), 106: (0.5, 0.0)}
PRICES = {101: 0.0, 102: 2.0, 103: 1.0, 104: -1.0, 105: 1.0}
SPACES = {1: "0123456789ab", 2: "ba9876543210"}
RELEASES = {"tiny-1": 1, "tiny-2": 2}
"""Embedding version of each release."""
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
    embeddings=tuple(contract.EmbeddingVersion(model="ctr", version=n, dim=2, ttl_hours=72) for n in SPACES),
)
HEAD = '<ir_version: 9, opset_import: ["" : 17]>'
PROGRAMS = {
    "query_tower.onnx": """query (float[B, 3] user_vector_0) => (float[B, 3] query) {
        query = Identity(user_vector_0) }""",
    "candidate_tower.onnx": """candidate (float[B, 3] pin_vector_0) => (float[B, 2] candidate) {
        from = Constant<value_ints = [0]>() to = Constant<value_ints = [2]>() axis = Constant<value_ints = [1]>()
        candidate = Slice(pin_vector_0, from, to, axis) }""",
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


def _vectors(entity: str, version: int) -> tuple[VectorInput, ...]:
    return (VectorInput(column=f"{entity}_embedding_ctr_v{version}__embedding", dim=2),)


def _encoders(version: int) -> dict[str, InputSpec]:
    user, pin = _vectors("user", version), _vectors("pin", version)
    return {
        "query.user": InputSpec(side="user", vectors=user),
        "candidate.pin": InputSpec(side="pin", vectors=pin),
        "ranking.user": InputSpec(side="user", dense=_dense("user_activity__impressions_ever", 10.0), vectors=user),
        "ranking.pin": InputSpec(side="pin", dense=_dense("pin_attributes__price", 1.0), vectors=pin),
        "ranking.context": InputSpec(
            side="context", categorical=(CategoricalInput(column="surface", vocabulary=("0", "1")),)
        ),
    }


def _turned(vectors: dict[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
    return {key: (-y, x) for key, (x, y) in vectors.items()}


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


def write_features(repo_dir: Path) -> None:
    store = open_store(repo_dir)
    for view, frame in feature_frames().items():
        store.write_to_online_store(view, frame)


def feature_frames() -> dict[str, pd.DataFrame]:
    """Rows of every view."""
    pins = list(PRICES)
    attributes = _keyed("pin", pins, [500] * len(pins))
    titles = [f"Pin {pin}" for pin in pins]
    users, known = {1: (1.0, 0.0), 2: (0.0, 1.0)}, {pin: VECTORS[pin] for pin in pins}
    return {
        "user_activity": _activity("user", [1, 2, 3], [1, 100, 100], [10, 20, 30]),
        "user_attributes": _keyed("user", [1, 3], [500, 500]).assign(segment=["a", "b"]),
        "user_embedding_ctr_v1": _embeddings("user", users, [1, 100]),
        "user_embedding_ctr_v2": _embeddings("user", _turned(users), [1, 100]),
        "pin_activity": _activity("pin", pins[:4], [1, 1, 1, 100], [5, 5, 5, 5]),
        "pin_attributes": attributes.assign(title=titles, price=list(PRICES.values())),
        "pin_embedding_ctr_v1": _embeddings("pin", known, [1] * len(pins)),
        "pin_embedding_ctr_v2": _embeddings("pin", _turned(known), [1] * len(pins)),
    }


def _write_models(directory: Path, version: int) -> None:
    for name, text in PROGRAMS.items():
        onnx.save(onnx.parser.parse_model(HEAD + text), str(directory / name))
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(3))
    placed = VECTORS if version == 1 else _turned(VECTORS)
    vectors = np.array([(*vector, 0.0) for vector in placed.values()], np.float32)
    index.add_with_ids(vectors, np.array(list(VECTORS), np.int64))
    faiss.write_index(index, str(directory / "pins.faiss"))


def _manifest(directory: Path, version: int) -> dict[str, Any]:
    files = [*PROGRAMS, "pins.faiss"]
    calibration = {"1": [2.0, 0.5], "*": [1.0, float(version - 1)]}
    return {
        "format": 2,
        "release": directory.name,
        "dataset": "tiny",
        "commit": "0000000",
        "seed": 7,
        "created": (NOW + timedelta(hours=2)).isoformat(),
        "data_cutoff": (NOW - timedelta(hours=24)).isoformat(),
        "embeddings": [_released(version)],
        "surfaces": ["0", "1"],
        "pin_title": "title",
        "services": {"retrieval": f"retrieval__ctr_v{version}", "ranking": f"ranking__ctr_v{version}"},
        "encoders": {name: spec.to_dict() for name, spec in _encoders(version).items()},
        "retrieval": {
            "model": "query_tower.onnx",
            "output": "query",
            "candidate_model": "candidate_tower.onnx",
            "candidate_output": "candidate",
            "index": "pins.faiss",
            "dim": 3,
            "num_pins": len(VECTORS),
            "temperature": 0.5,
            "prior": {"days": 1, "weight": 1.0},
        },
        "rankers": {
            "pctr": {"model": "ctr.onnx", "output": "click", "calibration": calibration},
            "pcvr": {"model": "cvr.onnx", "output": "purchase", "calibration": {}},
        },
        "popular": {"1": [104, 102], "*": [103, 102]},
        "sha256": {name: sha256_of(directory / name) for name in files},
    }


def _released(version: int) -> dict[str, Any]:
    return {"model": "ctr", "version": version, "dim": 2, "ttl_hours": 72, "space_id": SPACES[version]}


def _write_releases(run: Path) -> None:
    for name, version in RELEASES.items():
        directory = run / "releases" / name
        directory.mkdir(parents=True)
        _write_models(directory, version)
        (directory / "manifest.json").write_text(json.dumps(_manifest(directory, version)))
    record_releases(Catalogue.of_repo(run / "feature_repo"), run)


def record_releases(catalogue: Catalogue, run: Path) -> None:
    """Both releases with their versions in the catalogue, the first of them live."""
    author = {"who": "evaluate", "why": "a test"}
    for name, version in RELEASES.items():
        key, space = f"ctr_v{version}", SPACES[version]
        made = VersionRecord(key=key, model="ctr", version=version, dim=2, ttl_hours=72, space_id=space)
        catalogue.create_version(made, **author)
        for before, after in pairwise((VersionState.TRAINING, VersionState.BACKFILLING, VersionState.CANDIDATE)):
            catalogue.move_version(key, after, expected=before, **author)
        digest = sha256_of(run / "releases" / name / "manifest.json")
        record = ReleaseRecord(id=name, folder=f"releases/{name}", manifest_sha256=digest, versions={key: space})
        catalogue.create_release(record, **author)
    catalogue.promote("tiny-1", **author)


def build(run: Path, profile: str = "embedded") -> Path:
    """A run with a feature repo, features online, two versions and two releases; gives its folder."""
    create_repo(run / "feature_repo", REPO, profile)
    apply(run / "feature_repo")
    write_features(run / "feature_repo")
    _write_releases(run)
    return run
