"""A new embedding version beside those that are there, trained from scratch or compatible with an older one.

Its walk over the window is its history: each day is embedded by the model as of that day. While it is made nobody
reads it; it is a candidate once its days are published, its gates have passed and its newest day is online.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from feature_repo.contract import write_atomically
from feature_repo.layout import open_store
from feature_repo.versions import VersionRecord, VersionState
from trainers.data.leak_gate import check_days_for_leaks
from trainers.data.prepare import daily_views, materialize
from trainers.data.upstream_data import UpstreamSpecs, upstream_specs
from trainers.life.artifacts import version_artifacts
from trainers.life.day_check import backward_file, published_figures
from trainers.life.home import INPUTS_FILE, Home, embedding_version, upstream_recipe
from trainers.life.older_version import compatible_with
from trainers.life.operators import operator
from trainers.life.recording import record_days
from trainers.life.registration import register
from trainers.life.requests import Request
from trainers.life.version_plan import NewVersion, PlannedVersion, planned_version
from trainers.life.walked_days import embed_days, trainer_of, walk_days
from trainers.progress import Progress
from trainers.run_lock import run_lock
from trainers.upstream.gates import check
from trainers.upstream.publish import PublishPlan, publish
from trainers.upstream.reference import write_reference
from trainers.upstream.walk import CHECKPOINT, PROGRESSIVE_FILE
from trainers.upstream_steps import id_tables

_PUBLISHED = "its days are published"


def create_version(
    home: Home, wanted: NewVersion, progress: Progress, request: Request | None = None
) -> tuple[VersionRecord, dict[str, Any]]:
    """Make a version up to state candidate; the same call goes on with one that was interrupted.

    Args:
        request: Keeps a note of what is made until whoever asked has been told; none where nobody waits for that.

    Returns:
        The version, and figures of what was made.

    Raises:
        RunLockedError: Another process works in the run.
        ValueError: There is no such model or version, or another version of the model is unfinished.
        GateFailedError: The newest day of the version is broken; it stays unfinished.
    """
    with run_lock(home.run):
        home.remove_partials()
        plan = planned_version(home, wanted, request.noted() if request is not None else {})
        if plan.finished:
            return plan.record, {"days": len(plan.cutoffs)}
        record, cutoffs = _begin(home, plan, request), plan.cutoffs
        who, folder = operator(), home.folder(record.key)
        if record.state == VersionState.TRAINING:
            _train(home, record, cutoffs, progress)
            embed_days(home, record, cutoffs, folder, progress)
            space = write_reference(folder, cutoffs[-1])
            digests, why = version_artifacts(home, record.key), "trained over the window"
            home.catalogue.update_version(record.key, space_id=space, artifacts=digests, who=who, why=why)
            record = _move(home, record, VersionState.BACKFILLING, why)
        figures = _publish(home, record, cutoffs, progress)
        return _move(home, record, VersionState.CANDIDATE, _PUBLISHED), figures


def _begin(home: Home, plan: PlannedVersion, request: Request | None) -> VersionRecord:
    """The version in the catalogue; noted before it is there, so that a kill in between makes no second one."""
    if request is not None:
        request.note(version=plan.record.key)
    if plan.begun:
        return plan.record
    parents = plan.record.parents
    why = f"compatible with {parents[0]}" if parents else "trained from scratch"
    return home.catalogue.create_version(plan.record, who=operator(), why=why)


def _train(home: Home, record: VersionRecord, cutoffs: Sequence[datetime], progress: Progress) -> None:
    folder = home.folder(record.key)
    inputs = folder / INPUTS_FILE
    if not inputs.is_file():
        known_by, tables = home.log.spec.window.train_from, id_tables(upstream_recipe(record))
        upstream_specs(home.log, home.manifest(), home.offline, known_by, tables).save(inputs)
    curve = walk_days(home, record, cutoffs, folder, progress)
    write_atomically(folder / PROGRESSIVE_FILE, json.dumps(curve) + "\n")
    older = compatible_with(home, record)
    if older is not None:
        trainer = trainer_of(home, record, UpstreamSpecs.load(inputs))
        trainer.load(folder / CHECKPOINT)
        assert trainer.backward is not None
        trainer.backward.save(backward_file(folder, older.key), {"cutoff": cutoffs[-1].isoformat()})


def _publish(home: Home, record: VersionRecord, cutoffs: Sequence[datetime], progress: Progress) -> dict[str, Any]:
    """Average, judge, register, bring online and record the days."""
    version, folder = embedding_version(record), home.folder(record.key)
    figures = published_figures(home, record, cutoffs[-1])
    check(f"{record.key} of {cutoffs[-1]:%Y-%m-%d}", figures, home.recipe.gates)
    counts = publish(plan_of(home, record, cutoffs), progress)
    register(home, version)
    newest = cutoffs[-1] + home.log.spec.publish_delay
    views = [view for view in daily_views([version]) if view.endswith(record.key)]
    store = open_store(home.repo_dir)
    checked = check_days_for_leaks(home.log, store, home.repo_dir, [version], cutoffs, progress)
    materialize(store, views, (), newest, progress)
    record_days(home, record, cutoffs, who=operator(), why=_PUBLISHED)
    for name in ("weights", "entities"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return {"days": len(cutoffs), **counts, **checked}


def plan_of(home: Home, record: VersionRecord, cutoffs: Sequence[datetime]) -> PublishPlan:
    """Averages over days in a row."""
    return PublishPlan(
        version=embedding_version(record),
        daily=home.folder(record.key),
        offline=home.offline,
        cutoffs=cutoffs,
        publish_delay=home.log.spec.publish_delay,
        average_weight=upstream_recipe(record).average_weight,
    )


def _move(home: Home, record: VersionRecord, to: VersionState, why: str) -> VersionRecord:
    return home.catalogue.move_version(record.key, to, expected=record.state, who=operator(), why=why)
