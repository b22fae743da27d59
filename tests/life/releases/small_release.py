"""A run over the small repo with a release of hand-made programs: a Pin's candidate vector is its upstream vector."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import onnx.parser

from feature_repo.encoding import CategoricalInput, InputSpec, VectorInput
from feature_repo.layout import open_store
from feature_repo.release.files import RELEASES
from feature_repo.versions import Catalogue, VersionRecord, VersionState
from tests.data.small_repo import SmallRepo
from tests.serving.tiny_run import HEAD
from trainers.data.event_log import EventLog
from trainers.data.retrieval_data import RetrievalReader
from trainers.life.pin_index import CandidateProgram, popular_pins, write_pin_index
from trainers.life.release_folders import write_release_folder
from trainers.life.releases import record_release
from trainers.run_config import RunConfig

SPACE = "c" * 12
TEMPERATURE, WEIGHT, DAYS = 0.5, 0.25, 1
AUTHOR = {"who": "evaluate", "why": "a test"}


def programs(dim: int) -> dict[str, str]:
    """Text of every program over vectors of a width; the last element of an input says whether it was present."""
    return {
        "query_tower.onnx": f"""query (float[B, {dim + 1}] user_vector_0) => (float[B, {dim + 1}] query) {{
            query = Identity(user_vector_0) }}""",
        "candidate_tower.onnx": f"""candidate (float[B, {dim + 1}] pin_vector_0) => (float[B, {dim}] candidate) {{
            from = Constant<value_ints = [0]>() to = Constant<value_ints = [{dim}]>()
            axis = Constant<value_ints = [1]>() candidate = Slice(pin_vector_0, from, to, axis) }}""",
        "pctr.onnx": f"""ctr (float[B, {dim + 1}] pin_vector_0) => (float[B] click) {{
            axis = Constant<value_ints = [1]>() click = ReduceSum<keepdims = 0>(pin_vector_0, axis) }}""",
    }


def make_run(repo: SmallRepo, run: Path, cutoff: datetime) -> Catalogue:
    """A copy of the repo as a run whose live release is of a cut-off; gives its catalogue."""
    shutil.copytree(repo.folder, run, ignore=shutil.ignore_patterns("staging", "state"))
    (run / "run.json").write_text(RunConfig(dataset="synthetic", out=run).to_json())
    catalogue = Catalogue.of_repo(run / "feature_repo")
    dim = repo.manifest.embeddings[0].dim
    made = VersionRecord(key="ctr_v1", model="ctr", version=1, dim=dim, space_id=SPACE)
    catalogue.create_version(made, **AUTHOR)
    for before, after in pairwise((VersionState.TRAINING, VersionState.BACKFILLING, VersionState.CANDIDATE)):
        catalogue.move_version("ctr_v1", after, expected=before, **AUTHOR)
    manifest = write_release_folder(run / RELEASES, lambda folder: fill(run, folder, dim, cutoff))
    record_release(catalogue, run, manifest, made_by="run", **AUTHOR)
    catalogue.promote(manifest.release, **AUTHOR)
    return catalogue


def fill(run: Path, folder: Path, dim: int, cutoff: datetime) -> Mapping[str, Any]:
    """Files and manifest of the release of a cut-off."""
    for name, text in programs(dim).items():
        onnx.save(onnx.parser.parse_model(HEAD + text), str(folder / name))
    user, pin = (
        InputSpec(side=side, vectors=(VectorInput(column=f"{side}_embedding_ctr_v1__embedding", dim=dim),))
        for side in ("user", "pin")
    )
    context = InputSpec(side="context", categorical=(CategoricalInput(column="surface", vocabulary=("home",)),))
    log = EventLog(run / "event_log")
    program = CandidateProgram(
        file=folder / "candidate_tower.onnx",
        output="candidate",
        encoder=pin,
        temperature=TEMPERATURE,
        prior_days=DAYS,
        prior_weight=WEIGHT,
    )
    pin_ids = write_pin_index(program, reader(run, log, pin), cutoff, folder / "pins.faiss")
    sides = {"query.user": user, "candidate.pin": pin, "ranking.user": user, "ranking.pin": pin}
    retrieval = {"model": "query_tower.onnx", "output": "query", "index": "pins.faiss", "dim": dim + 1}
    retrieval |= {"candidate_model": "candidate_tower.onnx", "candidate_output": "candidate"}
    retrieval |= {"num_pins": len(pin_ids), "temperature": TEMPERATURE, "prior": {"days": DAYS, "weight": WEIGHT}}
    made: dict[str, Any] = {
        "dataset": "synthetic",
        "commit": "0000000",
        "seed": 1,
        "data_cutoff": cutoff.isoformat(),
        "embeddings": [{"model": "ctr", "version": 1, "dim": dim, "ttl_hours": 72, "space_id": SPACE}],
        "surfaces": ["home"],
        "pin_title": None,
        "services": {"retrieval": "retrieval__ctr_v1", "ranking": "ranking__ctr_v1"},
        "encoders": {name: spec.to_dict() for name, spec in (sides | {"ranking.context": context}).items()},
        "retrieval": retrieval,
        "rankers": {"pctr": {"model": "pctr.onnx", "output": "click"}},
        "popular": popular_pins(log, cutoff),
    }
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain


def reader(run: Path, log: EventLog, pin: InputSpec) -> RetrievalReader:
    """Reader of Pin features with an encoder."""
    offline = run / "feature_repo" / "data" / "offline"
    store = open_store(run / "feature_repo")
    return RetrievalReader(log, store, offline, "retrieval__ctr_v1", InputSpec(side="user"), pin)
