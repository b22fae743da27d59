"""The steps of a run, in order; each body is imported when it runs, so that listing them is quick."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from feature_repo.contract import write_atomically
from trainers.markers import read_marker
from trainers.progress import Progress
from trainers.run_config import RunConfig
from trainers.steps import RunContext, Step, remove

MADE_FROM = "upstream/made_from.json"
"""What the upstream models of a run are being trained on; a checkpoint of anything else must not be continued."""

# OpenMP reads this when torch loads it, which is later than here. Threads that wait spin for a moment and then sleep:
# spinning on, they slow down a shared machine tenfold; asleep at once, they cost a quarter of the speed of an idle one.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def _body(module: str, function: str) -> Callable[[RunContext, Progress], Mapping[str, Any]]:
    def run(context: RunContext, progress: Progress) -> Mapping[str, Any]:
        figures: Mapping[str, Any] = getattr(import_module(module), function)(context, progress)
        return figures

    return run


def _recipe_inputs(context: RunContext, *parts: str) -> Mapping[str, str]:
    """Fingerprint of the parts of the recipe that a step depends on."""
    from trainers.recipes import get_recipe

    text = get_recipe(context.config.recipe).fingerprint_text(*parts)
    return {"recipe": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _upstream_inputs(context: RunContext) -> Mapping[str, str]:
    return _recipe_inputs(context, "windows_days", "sequence_length", "activity_ttl_hours", "upstream", "domains")


def _source_inputs(context: RunContext) -> Mapping[str, str]:
    from trainers.data.prepare import source_fingerprint

    return source_fingerprint(context.config)


def _evaluate_inputs(context: RunContext) -> Mapping[str, str]:
    recipe = _recipe_inputs(
        context, "ctr", "cvr", "ctr_tried", "cvr_tried", "boosted", "retrieval", "bootstrap_samples"
    )
    return {**recipe, "seeds": str(context.config.num_seeds)}


def _train(context: RunContext, progress: Progress) -> Mapping[str, Any]:
    """Train, from the beginning unless an interrupted walk was over the same rows with the same recipe."""
    before = read_marker(context.directory, "apply")
    made_from = json.dumps({**_upstream_inputs(context), "apply": before.fingerprint if before else ""}) + "\n"
    note = context.path(MADE_FROM)
    fresh = not note.is_file() or note.read_text() != made_from
    if fresh:
        remove(note.parent)
        for snapshots in context.path("feature_repo/data/offline").glob("*_embedding_*"):
            remove(snapshots)
    _recording().begin_training(context, fresh=fresh)
    if fresh:
        write_atomically(note, made_from)
    return _body("trainers.upstream_steps", "run_train")(context, progress)


def _materialize(context: RunContext, progress: Progress) -> Mapping[str, Any]:
    """Bring everything online; then the embedding versions are candidates for a release."""
    from trainers.life.home import Home
    from trainers.upstream_steps import embedded_cutoffs

    figures = _body("trainers.data.prepare", "run_materialize")(context, progress)
    home = Home(context)
    own = import_module("trainers.data.prepare").manifest(context).embeddings
    _recording().record_visible(home, own, embedded_cutoffs(home.log))
    return figures


def _refuse_to_lose(context: RunContext) -> None:
    _recording().refuse_to_lose(context)


def _recording() -> Any:
    return import_module("trainers.life.recording")


def steps(config: RunConfig) -> list[Step]:
    """Steps of a run; those that would train again refuse to forget what they did not make."""
    del config
    return [
        Step(
            "ingest",
            _body("trainers.data.prepare", "run_ingest"),
            inputs=_source_inputs,
            outputs=("event_log",),
            writes_aside=True,
            refuse=_refuse_to_lose,
        ),
        Step(
            "features",
            _body("trainers.data.prepare", "run_features"),
            inputs=_upstream_inputs,
            outputs=("feature_repo/data/offline/user_activity", "feature_repo/data/offline/pin_activity"),
            refuse=_refuse_to_lose,
        ),
        Step(
            "apply",
            _body("trainers.data.prepare", "run_apply"),
            outputs=("feature_repo/data/manifest.json",),
            refuse=_refuse_to_lose,
        ),
        Step("train", _train, inputs=_upstream_inputs, outputs=("upstream",), refuse=_refuse_to_lose),
        Step("publish", _body("trainers.upstream_steps", "run_publish"), outputs=("feature_repo/data/offline",)),
        Step("materialize", _materialize),
        Step(
            "evaluate",
            _body("trainers.evaluation.step", "run_evaluate"),
            inputs=_evaluate_inputs,
            outputs=("evaluation", "releases"),
        ),
        Step("report", _body("trainers.evaluation.step", "run_report"), outputs=("report.json", "report.html")),
    ]
