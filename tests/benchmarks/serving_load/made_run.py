"""A run to serve that nobody trained: made-up vectors of two embedding versions, and a release of each.

The versions are drawn apart, so that a score, an index or a vector of the other one shows in every answer.

Dims: P Pins, U users, D width of a vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import onnx
import onnx.numpy_helper
import onnx.parser
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contract import (
    ENTITIES,
    AttributeField,
    EmbeddingVersion,
    RepoManifest,
    attributes_view,
    embedding_view,
    join_key,
)
from feature_repo.encoding import REQUEST_ROW, CategoricalInput, DenseInput, InputSpec, VectorInput
from feature_repo.layout import EMBEDDED, apply, create_repo, open_store
from feature_repo.release.files import RELEASES
from feature_repo.versions import Catalogue, VersionRecord, VersionState
from trainers.life.index_kinds import make_index
from trainers.life.release_folders import write_release_folder
from trainers.life.releases import record_release
from trainers.run_config import RunConfig

NOW = datetime(2026, 1, 10, tzinfo=UTC)
"""Moment at which a server of the run answers."""
SURFACE = "home"
HIDDEN = 32
"""Width of the ranker's hidden layer."""
SPREAD = np.float32(0.4)
"""Distance of vectors from their centre, over that of the centres from zero."""
_WHO, _WHY = "benchmark", "to be measured"
_STAMP = pa.timestamp("us", tz="UTC")
_HEAD = '<ir_version: 9, opset_import: ["" : 17]>'

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much there is to serve."""

    pins: int = 50_000
    """P, all of them in the index."""
    users: int = 2_000
    """U, all of them known online."""
    dim: int = 64
    """D."""
    clusters: int = 0
    """Centres around which vectors lie, as those of real towers do; none for vectors without any structure."""
    versions: int = 2
    """Embedding versions, each with a release."""
    hidden: int = HIDDEN
    """Width of the ranker's hidden layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """Vectors of one embedding version."""

    version: EmbeddingVersion
    users: Vectors
    """[U, D]; user keys are positions."""
    pins: Vectors
    """[P, D]; Pin keys are positions."""

    @property
    def space_id(self) -> str:
        """What follows from the vectors."""
        return hashlib.sha256(self.users.tobytes() + self.pins.tobytes()).hexdigest()[:12]


def make_run(run: Path, size: Size, profile: str = EMBEDDED) -> list[str]:
    """Write a run with all features online and a release of each version, the first of them live; gives their names.

    Args:
        profile: Stores of the feature repo.
    """
    spaces = [_space(number, size) for number in range(1, size.versions + 1)]
    repo = run / "feature_repo"
    create_repo(repo, _repo_manifest(size), profile)
    apply(repo)
    _put_online(repo, spaces, size)
    (run / "run.json").write_text(RunConfig(dataset="synthetic", out=run).to_json())
    catalogue = Catalogue.of_repo(repo)
    made = [_make_release(run, catalogue, space, size.hidden) for space in spaces]
    catalogue.promote(made[0], who=_WHO, why=_WHY)
    return made


def _space(number: int, size: Size) -> Space:
    random = np.random.default_rng(number)
    users, pins = (random.standard_normal((count, size.dim), np.float32) for count in (size.users, size.pins))
    if size.clusters:
        centres = random.standard_normal((size.clusters, size.dim), np.float32)
        for vectors in (users, pins):
            vectors *= SPREAD
            vectors += centres[random.integers(size.clusters, size=len(vectors))]
    for vectors in (users, pins):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Space(version=EmbeddingVersion(model="ctr", version=number, dim=size.dim), users=users, pins=pins)


def _repo_manifest(size: Size) -> RepoManifest:
    return RepoManifest(
        dataset="made",
        labels=("click",),
        conversions=(),
        windows_days=(7,),
        sequence_length=3,
        user_attributes=(AttributeField(name="age", kind="dense", type="float"),),
        pin_attributes=(
            AttributeField(name="title", kind="categorical", type="string"),
            AttributeField(name="price", kind="dense", type="float"),
        ),
        embeddings=tuple(
            EmbeddingVersion(model="ctr", version=number, dim=size.dim) for number in range(1, size.versions + 1)
        ),
    )


def _put_online(repo: Path, spaces: list[Space], size: Size) -> None:
    random, stamp = np.random.default_rng(0), NOW - timedelta(hours=1)
    ages, prices = random.random(size.users), random.random(size.pins)
    titles = [f"Pin {number}" for number in range(size.pins)]
    tables = {
        attributes_view("user"): _keyed("user", size.users, {"age": ages}, stamp),
        attributes_view("pin"): _keyed("pin", size.pins, {"title": titles, "price": prices}, stamp),
    }
    for space in spaces:
        for entity, vectors in (("user", space.users), ("pin", space.pins)):
            view = embedding_view(entity, space.version.model, space.version.version)
            flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), size.dim)
            columns = {"embedding": flat.cast(pa.list_(pa.float32())), "data_cutoff": _repeated(stamp, len(vectors))}
            tables[view] = _keyed(entity, len(vectors), columns, stamp)
    store = open_store(repo)
    for view, table in tables.items():
        file = repo / "data" / "offline" / view / f"date={stamp:%Y-%m-%d}.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(table, file)
        # Feast prints a line and a bar per view.
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            store.materialize(stamp - timedelta(hours=1), NOW, [view])


def _keyed(entity: str, count: int, columns: Mapping[str, Any], stamp: datetime) -> pa.Table:
    stamps = _repeated(stamp, count)
    keys = {join_key(entity): np.arange(count), "event_timestamp": stamps, "created_timestamp": stamps}
    return pa.table({**keys, **columns})


def _repeated(stamp: datetime, count: int) -> pa.Array:
    return pa.array([stamp], _STAMP).take(pa.array(np.zeros(count, np.int64)))


def _make_release(run: Path, catalogue: Catalogue, space: Space, hidden: int) -> str:
    version = space.version
    record = VersionRecord(
        key=version.key,
        model=version.model,
        version=version.version,
        dim=version.dim,
        ttl_hours=version.ttl_hours,
        space_id=space.space_id,
    )
    catalogue.create_version(record, who=_WHO, why=_WHY)
    for before, after in pairwise((VersionState.TRAINING, VersionState.BACKFILLING, VersionState.CANDIDATE)):
        catalogue.move_version(version.key, after, expected=before, who=_WHO, why=_WHY)
    manifest = write_release_folder(run / RELEASES, lambda folder: _fill(folder, space, hidden))
    return record_release(catalogue, run, manifest, made_by="benchmark", who=_WHO, why=_WHY).id


def _fill(folder: Path, space: Space, hidden: int) -> Mapping[str, Any]:
    """Files and manifest of a release."""
    dim, num_pins = space.version.dim, len(space.pins)
    towers = {"query_tower": ("user", dim + 1), "candidate_tower": ("pin", dim)}
    for name, (entity, width) in towers.items():
        onnx.save(_tower(entity, dim, width), str(folder / f"{name}.onnx"))
    onnx.save(_ranker(space.version.version, dim, hidden), str(folder / "pctr.onnx"))
    # Queries end with 1, which meets a popularity of zero.
    vectors = np.hstack([space.pins, np.zeros((num_pins, 1), np.float32)])
    faiss.write_index(make_index(vectors, np.arange(num_pins)), str(folder / "pins.faiss"))
    retrieval = {"model": "query_tower.onnx", "output": "vector", "index": "pins.faiss", "dim": dim + 1}
    retrieval |= {"candidate_model": "candidate_tower.onnx", "candidate_output": "vector", "num_pins": num_pins}
    made: dict[str, Any] = {
        "dataset": "made",
        "commit": "0000000",
        "seed": space.version.version,
        "data_cutoff": (NOW - timedelta(hours=1)).isoformat(),
        "embeddings": [{"model": "ctr", "version": space.version.version, "dim": dim, "space_id": space.space_id}],
        "surfaces": [SURFACE],
        "pin_title": "title",
        "services": {name: f"{name}__{space.version.key}" for name in ("retrieval", "ranking")},
        "encoders": {name: spec.to_dict() for name, spec in _encoders(space.version).items()},
        "retrieval": {**retrieval, "temperature": 1.0, "prior": {"days": 1, "weight": 0.0}},
        "rankers": {"pctr": {"model": "pctr.onnx", "output": "click"}},
        "popular": {"*": list(range(min(200, num_pins)))},
    }
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain


def _encoders(version: EmbeddingVersion) -> dict[str, InputSpec]:
    vectors = {
        entity: (VectorInput(column=f"{embedding_view(entity, 'ctr', version.version)}__embedding", dim=version.dim),)
        for entity in ENTITIES
    }
    price = DenseInput(column="pin_attributes__price", log=False, mean=0.0, scale=1.0)
    return {
        "query.user": InputSpec(side="user", vectors=vectors["user"]),
        "candidate.pin": InputSpec(side="pin", vectors=vectors["pin"]),
        "ranking.user": InputSpec(side="user", vectors=vectors["user"]),
        "ranking.pin": InputSpec(side="pin", dense=(price,), vectors=vectors["pin"]),
        "ranking.context": InputSpec(
            side="context", categorical=(CategoricalInput(column="surface", vocabulary=(SURFACE,)),)
        ),
    }


def _tower(entity: str, dim: int, width: int) -> onnx.ModelProto:
    """The vector itself, without its last element, which says whether it was present, or with it."""
    return onnx.parser.parse_model(
        f"""{_HEAD} tower (float[B, {dim + 1}] {entity}_vector_0) => (float[B, {width}] vector) {{
            from = Constant<value_ints = [0]>() to = Constant<value_ints = [{width}]>()
            axis = Constant<value_ints = [1]>() vector = Slice({entity}_vector_0, from, to, axis) }}"""
    )


def _ranker(version: int, dim: int, width: int) -> onnx.ModelProto:
    """A hidden layer over both vectors and the price, with weights that follow from the version."""
    model = onnx.parser.parse_model(
        f"""{_HEAD} ranker (float[R, {dim + 1}] user_vector_0, float[B, {dim + 1}] pin_vector_0, float[B, 2] pin_dense,
                            int64[B] {REQUEST_ROW}) => (float[B] click) {{
            once = MatMul(user_vector_0, of_user) of_request = Gather<axis = 0>(once, {REQUEST_ROW})
            pin = Concat<axis = 1>(pin_vector_0, pin_dense) of_candidate = MatMul(pin, of_pin)
            hidden = Add(of_request, of_candidate) active = Relu(hidden) logit = MatMul(active, last)
            shape = Constant<value_ints = [-1]>() click = Reshape(logit, shape) }}"""
    )
    random = np.random.default_rng(100 + version)
    first, last = (_weights(random, shape) for shape in ((2 * dim + 4, width), (width, 1)))
    for name, weights in (("of_user", first[: dim + 1]), ("of_pin", first[dim + 1 :]), ("last", last)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    return model


def _weights(random: np.random.Generator, shape: tuple[int, int]) -> Vectors:
    return (random.standard_normal(shape, np.float32) * np.float32(3 / np.sqrt(shape[0]))).astype(np.float32)
