"""A new embedding version beside those that are there, trained from scratch or compatible with an older one.

Its walk over the window is its history: each day is embedded by the model as of that day. While it is made nobody
reads it; it is a candidate once its days are published, its gates have passed and its newest day is online.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from feature_repo.contract import ENTITIES, write_atomically
from feature_repo.layout import open_store
from feature_repo.versions import VersionRecord, VersionState
from trainers.commit import commit
from trainers.data.leak_gate import check_days_for_leaks
from trainers.data.manifest import UPSTREAM_MODELS
from trainers.data.prepare import daily_views, materialize
from trainers.data.upstream_data import UpstreamSpecs, upstream_specs
from trainers.life.day_check import backward_file, published_figures
from trainers.life.day_training import compatible_with
from trainers.life.home import (
    INPUTS_FILE,
    Home,
    embedding_version,
    recorded_recipe,
    upstream_recipe,
)
from trainers.life.operators import operator
from trainers.life.recording import record_days
from trainers.life.refreshed import REFRESHED_STATES
from trainers.life.registration import register
from trainers.life.walked_days import embed_days, trainer_of, walk_days
from trainers.progress import Progress
from trainers.run_lock import run_lock
from trainers.upstream.gates import check
from trainers.upstream.publish import PublishPlan, publish
from trainers.upstream.reference import reference_file, write_reference
from trainers.upstream.vector_files import sha256_of
from trainers.upstream.walk import CHECKPOINT
from trainers.upstream_steps import PROGRESSIVE_FILE, embed_from

_PUBLISHED = "its days are published"
UNFINISHED = (VersionState.TRAINING, VersionState.BACKFILLING)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewVersion:
    """What is asked for."""

    model: str
    """Upstream model, `ctr` or `cvr`."""
    compatible_with: str | None = None
    """Key of the version to keep a map to; none to train from scratch."""
    seed: int | None = None
    """Seed of training; none for one that no version of the model has."""


def create_version(home: Home, wanted: NewVersion, progress: Progress) -> tuple[VersionRecord, dict[str, Any]]:
    """Make a version up to state candidate; the same call goes on with one that was interrupted.

    Returns:
        The version, and figures of what was made.

    Raises:
        RunLockedError: Another process works in the run.
        ValueError: There is no such model or version, or another version of the model is unfinished.
        GateFailedError: The newest day of the version is broken; it stays unfinished.
    """
    with run_lock(home.run):
        home.remove_partials()
        record = _begin(home, wanted)
        cutoffs = _cutoffs(home, record)
        who, folder = operator(), home.folder(record.key)
        if record.state == VersionState.TRAINING:
            _train(home, record, cutoffs, progress)
            embed_days(home, record, cutoffs, folder, progress)
            space = write_reference(folder, cutoffs[-1])
            files = [folder / CHECKPOINT, *(reference_file(folder, entity) for entity in ENTITIES)]
            digests = {str(file.relative_to(home.run)): sha256_of(file) for file in files}
            why = "trained over the window"
            home.catalogue.update_version(record.key, space_id=space, artifacts=digests, who=who, why=why)
            record = _move(home, record, VersionState.BACKFILLING, why)
        figures = _publish(home, record, cutoffs, progress)
        return _move(home, record, VersionState.CANDIDATE, _PUBLISHED), figures


def _begin(home: Home, wanted: NewVersion) -> VersionRecord:
    """The version in the catalogue: the unfinished one of before, or a new one."""
    if wanted.model not in UPSTREAM_MODELS or not home.catalogue.versions(model=wanted.model):
        known = sorted({each.model for each in home.catalogue.versions()})
        raise ValueError(f"--model must be one of {', '.join(known)} (got {wanted.model!r}); give --model {known[0]}")
    parents = (wanted.compatible_with,) if wanted.compatible_with else ()
    for key in parents:
        _check_parent(home, wanted.model, key)
    begun = home.catalogue.versions(model=wanted.model, states=UNFINISHED)
    if begun:
        return _same(begun[0], wanted, parents)
    number = home.catalogue.next_version(wanted.model)
    recipe = home.recipe.upstream
    newest = [home.catalogue.newest_day(each.key) for each in home.catalogue.versions(states=REFRESHED_STATES)]
    return home.catalogue.create_version(
        VersionRecord(
            key=f"{wanted.model}_v{number}",
            model=wanted.model,
            version=number,
            dim=recipe.embedding_dim,
            ttl_hours=recipe.ttl_hours,
            recipe=recorded_recipe(recipe),
            commit=commit() or "",
            seed=home.context.config.seed + number - 1 if wanted.seed is None else wanted.seed,
            data_from=home.log.spec.window.features_from,
            data_until=max(day.cutoff for day in newest if day is not None),
            parents=parents,
            alignment="backward_compatible" if parents else recipe.alignment,
        ),
        who=operator(),
        why=f"compatible with {parents[0]}" if parents else "trained from scratch",
    )


def _check_parent(home: Home, model: str, key: str) -> None:
    parent = home.catalogue.version(key)
    if parent.model != model or parent.state not in REFRESHED_STATES:
        raise ValueError(
            f"--compatible-with must name a version of {model} that is {' or '.join(REFRESHED_STATES)} "
            f"(got {key}, which is {parent.state} and of {parent.model}); see `headwater status`"
        )


def _same(begun: VersionRecord, wanted: NewVersion, parents: tuple[str, ...]) -> VersionRecord:
    if begun.parents != parents or wanted.seed not in (None, begun.seed):
        made = f"compatible with {begun.parents[0]}" if begun.parents else "from scratch"
        raise ValueError(
            f"version {begun.key} must be finished before another of {begun.model} is begun (it is {begun.state}, made "
            f"{made} with seed {begun.seed}); repeat its command to go on, or retire it"
        )
    return begun


def _cutoffs(home: Home, record: VersionRecord) -> list[datetime]:
    """Days that a version is published for: as a run does, a day before downstream training begins."""
    assert record.data_until is not None
    first = embed_from(home.log)
    return [first + timedelta(days=day) for day in range((record.data_until - first).days + 1)]


def _train(home: Home, record: VersionRecord, cutoffs: Sequence[datetime], progress: Progress) -> None:
    folder = home.folder(record.key)
    inputs = folder / INPUTS_FILE
    if not inputs.is_file():
        upstream_specs(home.log, home.manifest(), home.offline, home.log.spec.window.train_from).save(inputs)
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
