"""A repo with two embedding versions whose towers can be worked by hand, and what pushes into it.

A tower's vector is the direction of (attribute, impressions): of a user's `score` and `impressions_ever`, of a Pin's
`price` and `impressions_ever`. Version `cvr_v1` has the same two the other way round. User 1 and Pin 10 are known:
vector (1, 0) in both versions, 3 and 4 impressions, score and price 4 and 3. The past weighs 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contract import (
    AttributeField,
    EmbeddingVersion,
    RepoManifest,
    activity_fields,
    activity_view,
    attributes_view,
    embedding_view,
    join_key,
    write_atomically,
)
from feature_repo.encoding import CategoricalInput, DenseInput, InputSpec
from feature_repo.layout import apply, create_repo, open_store
from feature_repo.push.pusher import Pusher
from feature_repo.push.towers import OUTPUT, Program, TowerProgram, TowersManifest, towers_folder
from feature_repo.release.files import sha256_of
from feature_repo.versions import Catalogue, DayRecord, VersionRecord, VersionState

CUTOFF = datetime(2026, 1, 10, tzinfo=UTC)
DELAY = timedelta(hours=1)
USABLE = CUTOFF + DELAY
NOW = CUTOFF + timedelta(hours=12)
SPACES = {"ctr": "0123456789ab", "cvr": "ba9876543210"}
ATTRIBUTE = {"user": "score", "pin": "price"}
MOMENT = pa.timestamp("us", tz="UTC")
MANIFEST = RepoManifest(
    dataset="pushed",
    labels=("click",),
    conversions=(),
    windows_days=(1,),
    sequence_length=3,
    user_attributes=(
        AttributeField(name="segment", kind="categorical", type="string"),
        AttributeField(name="score", kind="dense", type="float"),
        AttributeField(name="age", kind="dense", type="int64"),
        AttributeField(name="topics", kind="multi_valued", type="int64"),
    ),
    pin_attributes=(
        AttributeField(name="price", kind="dense", type="float"),
        AttributeField(name="content", kind="vector", type="float", dim=2),
    ),
    embeddings=tuple(EmbeddingVersion(model=model, version=1, dim=2, ttl_hours=72) for model in SPACES),
)
AUTHOR: dict[str, Any] = {"who": "a test", "why": "a test"}
_TYPES = {
    "int64": pa.int64(),
    "float": pa.float64(),
    "string": pa.string(),
    "int64_list": pa.list_(pa.int64()),
    "float_list": pa.list_(pa.float32()),
    "string_list": pa.list_(pa.string()),
}
_HEAD = '<ir_version: 9, opset_import: ["" : 17]>'
_TOWER = """tower (float[B, 4] {side}_dense) => (float[B, 2] vector) {{
    places = Constant<value_ints = [{places}]>() two = Gather<axis = 1>({side}_dense, places)
    norm = ReduceL2<axes = [1], keepdims = 1>(two) vector = Div(two, norm) }}"""


def build(run: Path, profile: str, project: str) -> Path:
    """A run with the repo online and offline, and its versions in the catalogue."""
    repo = run / "feature_repo"
    create_repo(repo, MANIFEST, profile)
    config = repo / "feature_store.yaml"
    config.write_text(config.read_text().replace("project: headwater", f"project: {project}"))
    apply(repo)
    write_day(repo, CUTOFF, {"user": {1: (1.0, 0.0)}, "pin": {10: (1.0, 0.0)}})
    _write_known(repo)
    open_store(repo).materialize(datetime(2025, 1, 1, tzinfo=UTC), USABLE)
    catalogue = Catalogue.of_repo(repo)
    for model, space in SPACES.items():
        _record(catalogue, model, space)
        write_towers(run, model, CUTOFF)
    return run


def pusher_of(run: Path) -> Pusher:
    """What pushes into the run."""
    return Pusher(run, run / "feature_repo", Catalogue.of_repo(run / "feature_repo"), load_program)


def load_program(file: Path, output: str) -> Program:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda inputs: session.run([output], {name: inputs[name] for name in names})[0]


def at(**after: float) -> datetime:
    """A moment so long after `NOW`."""
    return NOW + timedelta(**after)


def write_day(repo: Path, cutoff: datetime, vectors: Mapping[str, Mapping[int, tuple[float, float]]]) -> None:
    """Snapshots of a day's vectors, the same in both versions."""
    for entity, known in vectors.items():
        for model in SPACES:
            rows = [{"embedding": list(vector), "data_cutoff": cutoff} for vector in known.values()]
            fields = {"embedding": pa.list_(pa.float32()), "data_cutoff": MOMENT}
            view = embedding_view(entity, model, 1)
            _write(repo, view, f"date={cutoff:%Y-%m-%d}", (entity, list(known)), rows, fields, cutoff + DELAY)


def write_towers(run: Path, model: str, cutoff: datetime, **changes: Any) -> Path:
    """Towers of a day; gives their folder."""
    folder = towers_folder(run, f"{model}_v1", cutoff)
    folder.mkdir(parents=True)
    programs = {}
    for side in ATTRIBUTE:
        file, places = folder / f"{side}_tower.onnx", "0, 1" if model == "ctr" else "1, 0"
        onnx.save(onnx.parser.parse_model(_HEAD + _TOWER.format(side=side, places=places)), str(file))
        programs[side] = TowerProgram(file=file.name, sha256=sha256_of(file), encoder=_encoder(side))
    made: dict[str, Any] = {
        "version": f"{model}_v1",
        "space_id": SPACES[model],
        "dim": 2,
        "cutoff": cutoff,
        "publish_delay_s": DELAY.total_seconds(),
        "average_weight": 0.5,
        "alignment": "none",
    }
    manifest = TowersManifest(**made | programs | changes)
    write_atomically(folder / "manifest.json", manifest.model_dump_json())
    assert OUTPUT == "vector"
    return folder


def rows_of(run: Path, view: str, key: int) -> pd.DataFrame:
    """Offline rows of an entity, the oldest first."""
    folder = run / "feature_repo" / "data" / "offline" / view
    tables = [pq.ParquetFile(file).read().to_pandas() for file in sorted(folder.glob("*.parquet"))]
    rows: pd.DataFrame = pd.concat(tables)
    found: pd.DataFrame = rows[rows[join_key(view.partition("_")[0])] == key].sort_values("event_timestamp")
    return found


def _encoder(side: str) -> InputSpec:
    columns = (f"{side}_attributes__{ATTRIBUTE[side]}", f"{side}_activity__impressions_ever")
    dense = tuple(DenseInput(column=column, log=False, mean=0.0, scale=1.0) for column in columns)
    known = (CategoricalInput(column="user_attributes__segment", vocabulary=("a", "b")),)
    return InputSpec(side=side, dense=dense, categorical=known if side == "user" else ())


def _write_known(repo: Path) -> None:
    """Activity and attributes of the entities that are known."""
    for entity, key, impressions in (("user", 1, 3), ("pin", 10, 4)):
        kinds = activity_fields(MANIFEST, entity)
        row: dict[str, Any] = {name: [] if kind.endswith("_list") else 0 for name, kind in kinds.items()}
        fields = {name: _TYPES[kind] for name, kind in kinds.items()}
        active = row | {"impressions_ever": impressions}
        _write(repo, activity_view(entity), f"date={CUTOFF:%Y-%m-%d}", (entity, [key]), [active], fields, USABLE)
    scalars = {"segment": pa.string(), "score": pa.float64(), "age": pa.int64(), "topics": pa.list_(pa.int64())}
    known = [{"segment": "a", "score": 4.0, "age": 40, "topics": [1]}]
    _write(repo, attributes_view("user"), "all", ("user", [1]), known, scalars, CUTOFF)
    vectors = {"price": pa.float64(), "content": pa.list_(pa.float32())}
    _write(repo, attributes_view("pin"), "all", ("pin", [10]), [{"price": 3.0, "content": [1.0, 0.0]}], vectors, CUTOFF)


def _write(
    repo: Path,
    view: str,
    name: str,
    keyed: tuple[str, list[int]],
    rows: list[dict[str, Any]],
    fields: Mapping[str, pa.DataType],
    moment: datetime,
) -> None:
    entity, keys = keyed
    folder = repo / "data" / "offline" / view
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {join_key(entity): pa.array(keys, pa.int64())}
    columns |= {stamp: pa.array([moment] * len(keys), MOMENT) for stamp in ("event_timestamp", "created_timestamp")}
    columns |= {field: pa.array([row[field] for row in rows], kind) for field, kind in fields.items()}
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def _record(catalogue: Catalogue, model: str, space: str) -> None:
    key = f"{model}_v1"
    made = VersionRecord(key=key, model=model, version=1, dim=2, space_id=space, data_until=CUTOFF, created=USABLE)
    catalogue.create_version(made, **AUTHOR)
    record_day(catalogue, key, CUTOFF)
    for before, after in pairwise((VersionState.TRAINING, VersionState.BACKFILLING, VersionState.CANDIDATE)):
        catalogue.move_version(key, after, expected=before, **AUTHOR)


def record_day(catalogue: Catalogue, key: str, cutoff: datetime) -> None:
    """A day that is visible."""
    for state in ("generated", "checked", "visible"):
        catalogue.put_day(DayRecord(key=key, cutoff=cutoff, state=state), **AUTHOR)
