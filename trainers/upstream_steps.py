"""The steps `train` and `publish` of a run: walks of the upstream models, and their embeddings as snapshots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.contract import EmbeddingVersion, write_atomically
from feature_repo.layout import open_store
from trainers.data.active_entities import ActiveEntities, EntityFiles
from trainers.data.event_log import EventLog
from trainers.data.manifest import embedding_versions
from trainers.data.model_inputs import field_config, side_config
from trainers.data.prepare import EVENT_LOG, OFFLINE, REPO, manifest, recipe
from trainers.data.upstream_data import (
    IdTables,
    UpstreamSpecs,
    read_rows,
    upstream_specs,
)
from trainers.forked import map_forked
from trainers.life.home import INPUTS_FILE, UPSTREAM, Home, version_folder
from trainers.life.recording import record_published, record_trained
from trainers.parallel import current_team, leads, wait_for_all
from trainers.progress import Progress
from trainers.steps import RunContext, remove
from trainers.torch_setup import set_up_torch
from trainers.upstream.compatibility import Compatibility
from trainers.upstream.model import UpstreamConfig
from trainers.upstream.publish import PublishPlan, publish
from trainers.upstream.recipes import UpstreamRecipe
from trainers.upstream.trainer import UpstreamTrainer
from trainers.upstream.walk import PROGRESSIVE_FILE, WalkPlan, walk
from trainers.upstream_rows import domain_tasks, history_reader, walk_data

ENTITY_FILES = f"{UPSTREAM}/entities"


def run_train(context: RunContext, progress: Progress) -> Mapping[str, Any]:
    """Walk every upstream model forward through the dataset's days, resuming where the last walk stopped."""
    set_up_torch(context.config.threads)
    team = current_team()
    if team is not None and team.leads:
        team.begin()
    log, repo, offline = EventLog(context.path(EVENT_LOG)), manifest(context), context.path(OFFLINE)
    store = open_store(context.path(REPO))
    specs = upstream_specs(log, repo, offline, log.spec.window.train_from, id_tables(recipe(context).upstream))
    rows = read_rows(log, store, specs, progress, until=log.spec.window.until, folder=context.path(UPSTREAM))
    retention = timedelta(days=recipe(context).upstream.retention_days)
    entities = EntityFiles(context.path(ENTITY_FILES))
    versions = embedding_versions(log.spec, recipe(context))
    if leads():
        entities.write(ActiveEntities(log, store, specs, offline, retention), embedded_cutoffs(log), progress)
        for version in versions:
            specs.save(version_folder(context.directory, version.key) / INPUTS_FILE)
    wait_for_all()

    def train(version: EmbeddingVersion, progress: Progress) -> list[dict[str, Any]]:
        history = history_reader(log, context.path(OFFLINE), specs, version.model, context.config.seed)
        sizes = recipe(context).upstream
        data = walk_data(log, rows, version.model, sizes, entities, history)
        trainer = upstream_trainer(log, specs, sizes, version.model, context.config.seed)
        return walk(trainer, data, _plan(context, log, version), progress)

    # The processes of a team train every model together, one model after the other.
    workers = context.config.threads if team is None else 1
    curves = map_forked(train, versions, name="upstream models", workers=workers, progress=progress)
    if not leads():
        return {}
    memory = round(id_tables_mb(specs, recipe(context).upstream), 1)
    return {"id_tables_mb": memory} | _trained(context, versions, curves, len(rows.user_ids))


def _trained(
    context: RunContext, versions: Sequence[EmbeddingVersion], curves: Sequence[list[dict[str, Any]]], num_rows: int
) -> dict[str, Any]:
    """Keep what the models scored, and say so in the catalogue; returns the step's figures."""
    figures: dict[str, Any] = {"rows": num_rows}
    for version, curve in zip(versions, curves, strict=True):
        folder = version_folder(context.directory, version.key)
        write_atomically(folder / PROGRESSIVE_FILE, json.dumps(curve) + "\n")
        figures |= _last_aucs(curve, version.model)
    remove(context.path(ENTITY_FILES))
    record_trained(Home(context), versions)
    return figures


def run_publish(context: RunContext, progress: Progress) -> Mapping[str, Any]:
    """Average the daily embeddings and write them to the offline store, a snapshot a day."""
    log = EventLog(context.path(EVENT_LOG))
    figures: dict[str, Any] = {}
    versions = embedding_versions(log.spec, recipe(context))
    for version in versions:
        counts = publish(
            PublishPlan(
                version=version,
                daily=version_folder(context.directory, version.key),
                offline=context.path(OFFLINE),
                cutoffs=embedded_cutoffs(log),
                publish_delay=log.spec.publish_delay,
                average_weight=recipe(context).upstream.average_weight,
            ),
            progress,
        )
        figures |= {f"{version.key}_{entity}s": count for entity, count in counts.items()}
    record_published(Home(context), versions, embedded_cutoffs(log)[-1])
    return figures


def embed_from(log: EventLog) -> datetime:
    """First cut-off with embeddings: a day before downstream training begins, so that its first hours have some."""
    return max(log.spec.window.features_from, log.spec.window.train_from - timedelta(days=1))


def embedded_cutoffs(log: EventLog) -> list[datetime]:
    """Cut-offs whose embeddings are kept."""
    return [cutoff for cutoff in log.spec.cutoffs() if cutoff >= embed_from(log)]


def _plan(context: RunContext, log: EventLog, version: EmbeddingVersion) -> WalkPlan:
    return WalkPlan(
        model=version.model,
        cutoffs=tuple(log.spec.cutoffs()),
        embed_from=embed_from(log),
        out=version_folder(context.directory, version.key),
        seed=context.config.seed,
    )


def upstream_trainer(
    log: EventLog,
    specs: UpstreamSpecs,
    sizes: UpstreamRecipe,
    model: str,
    seed: int,
    compatibility: Compatibility | None = None,
    tasks: tuple[str, ...] = (),
) -> UpstreamTrainer:
    """An untrained model for these inputs.

    Args:
        tasks: Those that it learns; all of its domains when not given.

    Raises:
        ValueError: The recipe weighs a task that the dataset does not declare.
    """
    known = [task.name for task in log.spec.tasks]
    if unknown := sorted({name for name, _ in sizes.task_weights} - set(known)):
        raise ValueError(f"task_weights must name tasks of the dataset, {', '.join(known)} (got {', '.join(unknown)})")
    config = upstream_config(specs, sizes, tasks or domain_tasks(log, model), len(log.spec.labels))
    return UpstreamTrainer(config, sizes, seed, compatibility)


def id_tables(sizes: UpstreamRecipe) -> IdTables:
    """How a recipe hashes entity keys."""
    return IdTables(hashes=sizes.id_hashes, max_buckets=sizes.max_id_buckets)


def id_tables_mb(specs: UpstreamSpecs, sizes: UpstreamRecipe) -> float:
    """What the id tables of one model take in training, in MiB: weights and both of Adam's moments."""
    rows = sum(item.buckets for spec in specs.sides() for item in spec.ids if not item.length)
    return rows * sizes.token_dim * 3 * 4 / 2**20


def upstream_config(
    specs: UpstreamSpecs, sizes: UpstreamRecipe, tasks: tuple[str, ...], num_labels: int
) -> UpstreamConfig:
    """Sizes of the towers for these inputs."""
    common: dict[str, Any] = {
        "field_dim": sizes.token_dim,
        "num_labels": num_labels,
        "normalise_dense": True,
        "sparse_ids": True,
        "min_id_count": sizes.min_id_count,
    }
    return UpstreamConfig(
        user=side_config(specs.user, id_dropout=sizes.id_dropout, **common),
        pin=side_config(specs.pin, id_dropout=sizes.pin_id_dropout, **common),
        context=field_config(specs.context, field_dim=sizes.token_dim),
        tasks=tasks,
        output_tokens=sizes.output_tokens,
        hidden_tokens=sizes.hidden_tokens,
        tower_layers=sizes.tower_layers,
        interaction_layers=sizes.interaction_layers,
        dhen_hidden_dim=sizes.dhen_hidden_dim,
        experts=sizes.experts,
        num_experts=sizes.num_experts,
    )


def _last_aucs(curve: list[dict[str, Any]], model: str) -> dict[str, float]:
    """Mean progressive ROC-AUC of each task over the last seven days."""
    days = sorted({point["day"] for point in curve})[-7:]
    by_task: dict[str, list[float]] = {}
    for point in curve:
        if point["day"] in days:
            by_task.setdefault(point["task"], []).append(point["roc_auc"])
    return {f"{model}_{task}_roc_auc": round(float(np.mean(aucs)), 4) for task, aucs in by_task.items()}


def read_progressive(run: Path, key: str) -> list[dict[str, Any]]:
    """Progressive evaluation of a version's upstream model; empty where it has not been trained."""
    file = version_folder(run, key) / PROGRESSIVE_FILE
    return json.loads(file.read_text()) if file.exists() else []
