"""What processes of the workshop do beside commands: the run, its first release, and parts of someone's own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import feast
import pandas as pd
import sklearn.linear_model
from feast import FeatureService
from feast.data_source import PushMode

import serving.app
import trainers.console
import trainers.evaluation.release
import trainers.evaluation.retrained
import trainers.evaluation.step
import trainers.life.backfill
import trainers.life.prune
import trainers.life.push
import trainers.life.push_towers
import trainers.life.refresh
import trainers.life.release_parts
import trainers.life.retire
import trainers.life.served_through
from feature_repo.encoding import CategoricalInput, InputSpec, VectorInput
from feature_repo.layout import open_store
from feature_repo.release.files import RELEASES
from feature_repo.versions import Catalogue
from tests.life.system import exported
from tests.life.system.exported import WIDTH, plain_programs, write_program
from tests.life.system.shop import UNTIL
from tests.life.system.stand_in import StandInTrainer, export, load_program
from trainers import pipeline, recipes, run_config, upstream_steps
from trainers.cli import app
from trainers.data import prepare as preparation
from trainers.data.event_log import EventLog
from trainers.data.retrieval_data import RetrievalReader
from trainers.execution import execute
from trainers.life.home import Home, embedding_version
from trainers.life.pin_index import CandidateProgram, popular_pins, write_pin_index
from trainers.life.release_folders import write_release_folder
from trainers.life.releases import promote_unless_chosen, record_release
from trainers.markers import Marker, write_marker
from trainers.progress import SilentProgress
from trainers.steps import RunContext
from trainers.upstream import gate_recipes
from trainers.upstream import recipes as upstream_recipes

IMPORTED = (feast, sklearn.linear_model, serving.app, trainers)
"""Here so that no forked process needs to import them."""
TRAINED = ("ingest", "features", "apply", "train", "publish", "materialize")
GATES = replace(gate_recipes.tiny(), min_cosine_median=0.8, min_cosine_p05=0.5)


class Silent(SilentProgress):
    """Observer of a run that shows nothing."""

    def step_started(self, name: str, reason: str, position: int, num_steps: int) -> None:
        """Nothing to show."""

    def step_finished(self, marker: Marker, *, ran: bool, position: int, num_steps: int) -> None:
        """Nothing to show."""


def prepare() -> None:
    """Put the stand-in in the place of towers, for this process and those that it forks."""
    tiny, sizes = recipes.tiny, upstream_recipes.tiny()
    small = replace(sizes, token_dim=WIDTH // sizes.output_tokens)
    recipes.RECIPES["tiny"] = lambda: dataclasses.replace(tiny(), upstream=small, gates=GATES)
    upstream_steps.UpstreamTrainer = StandInTrainer  # type: ignore[assignment, misc]
    trainers.life.push_towers.export = export  # type: ignore[assignment]
    trainers.life.push.load_program = load_program
    trainers.evaluation.release.export = exported.export
    trainers.evaluation.release.export_ranker = exported.export
    preparation.select = lambda _repo_dir, _package_dir=None: False


def command(arguments: list[str]) -> int:
    """Exit code of a command of `headwater`."""
    try:
        app(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def make_run(shop: str, run: str) -> str:
    """A run with one version and a live release of it; gives the release."""
    config, _ = run_config.resolve(run=Path(run), dataset=shop, recipe="tiny", num_seeds=1, threads=1)
    steps = [step for step in pipeline.steps(config) if step.name in TRAINED]
    execute(steps, RunContext(config=config), Silent())
    catalogue = Catalogue.of_repo(Path(run) / "feature_repo")
    author = {"who": "evaluate", "why": "trained on exactly these"}

    def fill(folder: Path) -> Mapping[str, Any]:
        return write_models(Path(run), folder, "ctr_v1", UNTIL) | {"parent": None}

    manifest = write_release_folder(Path(run) / RELEASES, fill)
    record_release(catalogue, Path(run), manifest, made_by="run", **author)
    promote_unless_chosen(catalogue, manifest.release, **author)
    made: dict[str, Any] = {"fingerprint": "f", "inputs": {}, "files": [], "figures": {}, "finished": "now"}
    write_marker(Path(run), Marker(step="evaluate", seconds=1.0, peak_mb=1.0, **made))
    return manifest.release


def write_parts(run: str, folder: str, key: str) -> None:
    """Everything that a team trained anew on a version, as it hands it to `release create`."""
    there = Path(folder)
    there.mkdir()
    newest = Home.of_run(Path(run)).newest_day(key).cutoff
    given = write_models(Path(run), there, key, newest)
    (there / "manifest.json").write_text(json.dumps(given))


def declare_service(run: str, name: str, key: str) -> None:
    """A team's own feature service on a version."""
    store = open_store(Path(run) / "feature_repo")
    store.apply([FeatureService(name=name, features=[store.get_feature_view(f"user_embedding_{key}")])])


def delete_service(run: str, name: str) -> None:
    """The team moves away."""
    store = open_store(Path(run) / "feature_repo")
    store.delete_feature_service(name)


def push_by_feast(run: str, entity: str, key: str, ids: Sequence[int], seconds: int) -> None:
    """Push vectors of the newest snapshot once more, as of some seconds after it, as another project does."""
    home = Home.of_run(Path(run))
    cutoff, view = home.newest_day(key).cutoff, f"{entity}_embedding_{key}"
    frame = pd.read_parquet(home.repo_dir / "data" / "offline" / view / f"date={cutoff:%Y-%m-%d}.parquet")
    frame = frame[frame[f"{entity}_id"].isin(ids)].reset_index(drop=True)
    frame["event_timestamp"] += timedelta(seconds=seconds)
    store = open_store(home.repo_dir)
    for mode in (PushMode.OFFLINE, PushMode.ONLINE):
        store.push(f"{view}_push", frame, to=mode)


def write_models(run: Path, folder: Path, key: str, cutoff: datetime) -> dict[str, Any]:
    """Programs and index over a version; gives the manifest's part that does not follow from the files."""
    home = Home.of_run(run)
    record, version = home.catalogue.version(key), embedding_version(home.catalogue.version(key))
    for name, text in plain_programs(version.dim).items():
        write_program(text, folder / name)
    user, pin = (_vector(side, key, version.dim) for side in ("user", "pin"))
    context = InputSpec(side="context", categorical=(CategoricalInput(column="surface", vocabulary=("home",)),))
    program = CandidateProgram(
        file=folder / "candidate_tower.onnx",
        output="candidate",
        encoder=pin,
        temperature=0.5,
        prior_days=1,
        prior_weight=0.25,
    )
    log, service = EventLog(run / "event_log"), f"retrieval__{key}"
    reader = RetrievalReader(log, open_store(home.repo_dir), home.offline, service, InputSpec(side="user"), pin)
    pin_ids = write_pin_index(program, reader, cutoff, folder / "pins.faiss")
    retrieval = {"model": "query_tower.onnx", "output": "query", "index": "pins.faiss", "dim": version.dim + 1}
    retrieval |= {"candidate_model": "candidate_tower.onnx", "candidate_output": "candidate"}
    retrieval |= {"num_pins": len(pin_ids), "temperature": 0.5, "prior": {"days": 1, "weight": 0.25}}
    sides = {"query.user": user, "candidate.pin": pin, "ranking.user": user, "ranking.pin": pin}
    made: dict[str, Any] = {
        "dataset": "smallest",
        "commit": "0000000",
        "seed": 1,
        "data_cutoff": cutoff.isoformat(),
        "embeddings": [{**dataclasses.asdict(version), "space_id": record.space_id}],
        "surfaces": ["home"],
        "pin_title": None,
        "services": {"retrieval": service, "ranking": f"ranking__{key}"},
        "encoders": {name: spec.to_dict() for name, spec in (sides | {"ranking.context": context}).items()},
        "retrieval": retrieval,
        "rankers": {"pctr": {"model": "pctr.onnx", "output": "click"}},
        "popular": popular_pins(log, cutoff),
    }
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain


def _vector(side: Any, key: str, dim: int) -> InputSpec:
    return InputSpec(side=side, vectors=(VectorInput(column=f"{side}_embedding_{key}__embedding", dim=dim),))
