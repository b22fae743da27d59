"""The steps before training: raw data to event log, event log to feature snapshots, snapshots to Feast."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.contract import (
    ENTITIES,
    EmbeddingVersion,
    RepoManifest,
    activity_view,
    attributes_view,
    embedding_view,
    history_view,
)
from feature_repo.layout import apply, create_repo, forget, open_store, select
from trainers.data import own_data
from trainers.data.activity import ActivityBuilder, ActivityConfig
from trainers.data.adapters import Adapter, AdapterOptions, get_adapter
from trainers.data.attributes import write_attributes
from trainers.data.checks import EventLogError
from trainers.data.dataset import DatasetSpec, Window
from trainers.data.event_log import EventLog, ingest
from trainers.data.ingest_report import IngestReport
from trainers.data.manifest import repo_manifest
from trainers.data.task_checks import check_tasks
from trainers.progress import Progress, share_of
from trainers.recipes import RunRecipe, get_recipe
from trainers.run_config import RunConfig
from trainers.steps import RunContext

if TYPE_CHECKING:
    from feast import FeatureStore

logger = logging.getLogger(__name__)

EVENT_LOG = "event_log"
CHECKED = "event_log_checked"
"""Where an event log waits until it is whole; a refused one leaves `event_log_checked.rejected` beside it."""
REPO = "feature_repo"
OFFLINE = "feature_repo/data/offline"
MEMORY_LIMIT = "1500MB"
"""DuckDB's memory limit in these steps."""


def dataset(config: RunConfig) -> tuple[DatasetSpec, Adapter, AdapterOptions]:
    """Declaration and source of the run's dataset: a built-in one, or a user's YAML."""
    options = AdapterOptions(path=Path(config.path) if config.path else None, seed=config.seed, scale=config.scale)
    if config.dataset.endswith((".yaml", ".yml")):
        if config.path:
            raise ValueError(
                f"a dataset YAML must name its files itself (got --path too: {config.path!r}); leave --path out"
            )
        spec, adapter = own_data.load(Path(config.dataset))
        return cut(spec, config.until), adapter, options
    built_in = get_adapter(config.dataset)
    return cut(built_in.spec(options), config.until), built_in, options


def cut(spec: DatasetSpec, until: str | None) -> DatasetSpec:
    """The dataset with its window ended at the cut-off on a UTC date, as if nothing had happened since.

    Raises:
        ValueError: No test day would be left, or the declared window ends earlier.
    """
    if until is None:
        return spec
    window = spec.window
    end = datetime.combine(date.fromisoformat(until), window.until.timetz())
    if not window.test_from < end <= window.until:
        raise ValueError(
            f"--until must leave train and test days: after {window.test_from:%Y-%m-%d}, where the test days of "
            f"{spec.name} begin, and at most {window.until:%Y-%m-%d}, where they end (got {until}); give a day "
            "between, or move the dataset's window"
        )
    return spec.model_copy(update={"window": window.model_copy(update={"until": end})})


def source_fingerprint(config: RunConfig) -> Mapping[str, str]:
    """What the event log depends on: the declaration, the options, and the raw files by size and time."""
    spec, _, _ = dataset(config)
    parts = {"spec": _sha(spec.model_dump_json()), "seed": str(config.seed), "scale": str(config.scale)}
    if config.dataset.endswith((".yaml", ".yml")):
        parts["yaml"] = _sha(Path(config.dataset).read_text())
        parts["files"] = _sha(_stats(own_data.load(Path(config.dataset))[1].source_files()))
    elif config.path:
        folder = Path(config.path)
        parts["files"] = _sha(_stats(sorted(folder.iterdir()) if folder.is_dir() else [folder]))
    return parts


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stats(files: Iterable[Path]) -> str:
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return json.dumps(stats)


def run_ingest(context: RunContext, progress: Progress) -> Mapping[str, Any]:
    """Stage the raw data and check it into the event log."""
    spec, adapter, options = dataset(context.config)
    staging = context.path(".staging")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        with progress.stage("stage raw data", 100) as stage:
            adapter.stage(staging, options, share_of(stage))
        with progress.stage("check and write the event log", 100) as stage:
            report = ingest(
                spec,
                staging,
                context.path(CHECKED),
                now=datetime.now(UTC),
                progress=share_of(stage),
                until=spec.window.until if context.config.until else None,
            )
        check_window(spec.window, report)
        check_tasks(EventLog(context.path(CHECKED)))
        for warning in report.warnings:
            logger.warning("event_log_warning text=%r", warning)
        context.swap_in(context.path(CHECKED), EVENT_LOG)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return {
        **{f"{name}_kept": table.kept for name, table in report.tables.items()},
        "quarantined": sum(sum(table.reasons.values()) for table in report.tables.values()),
        "warnings": list(report.warnings),
    }


def check_window(window: Window, report: IngestReport) -> None:
    """Refuse a window with no impressions to train on or to test on, before anything is computed for it.

    Raises:
        EventLogError: There are none; the text says which days have some.
    """
    days = [date.fromisoformat(day) for day, count in report.days.items() if count]
    for name, start, end in (("train", window.train_from, window.test_from), ("test", window.test_from, window.until)):
        if not any(start.date() <= day <= (end - timedelta(microseconds=1)).date() for day in days):
            raise EventLogError(
                f"the {name} days from {start:%Y-%m-%d} until {end:%Y-%m-%d} must hold impressions (got impressions "
                f"from {min(days)} to {max(days)}); move the dataset's window into the data"
            )


def manifest(context: RunContext) -> RepoManifest:
    """The run's feature repo, from its event log's declaration and its recipe."""
    return repo_manifest(EventLog(context.path(EVENT_LOG)).spec, recipe(context))


def recipe(context: RunContext) -> RunRecipe:
    """The run's recipe."""
    return get_recipe(context.config.recipe)


def run_features(context: RunContext, progress: Progress) -> Mapping[str, Any]:
    """Write the daily snapshots of activity, and the attributes and histories."""
    log = EventLog(context.path(EVENT_LOG))
    cutoffs, builder = log.spec.cutoffs(), activity_builder(context, log)
    now = datetime.now(UTC)
    done = 0
    with progress.stage("daily activity snapshots", len(cutoffs)) as stage:

        def report(num_done: int, total: int) -> None:
            del total
            nonlocal done
            stage.advance(num_done - done)
            done = num_done

        written = builder.build(cutoffs, created_timestamp=now, progress=report)
    write_attributes(context.path(EVENT_LOG), context.path(OFFLINE), manifest(context), created_timestamp=now)
    return {"snapshots": len(cutoffs), "written": len(written)}


def activity_builder(context: RunContext, log: EventLog) -> ActivityBuilder:
    """Builder of the run's activity snapshots, which goes on where it last stopped."""
    return ActivityBuilder(
        ActivityConfig(
            event_log=context.path(EVENT_LOG),
            offline=context.path(OFFLINE),
            state=context.path("features"),
            manifest=manifest(context),
            publish_delay=log.spec.publish_delay,
            retention_days=recipe(context).upstream.retention_days,
            memory_limit=MEMORY_LIMIT,
            threads=context.config.threads,
        )
    )


def run_apply(context: RunContext, progress: Progress) -> Mapping[str, Any]:
    """Create the run's Feast repo, register its objects, and point the top-level repo at it."""
    repo_dir = context.path(REPO)
    with progress.stage("feast apply"):
        create_repo(repo_dir, manifest(context))
        # Rows of entities that are in the log no more would be answered as present.
        forget(repo_dir)
        # What a killed process left beside the database would be replayed into a new one.
        for file in (repo_dir / "data").glob("online_store.db*"):
            file.unlink()
        apply(repo_dir)
        select(repo_dir)
    store = open_store(repo_dir)
    return {"feature_views": len(store.list_feature_views()), "feature_services": len(store.list_feature_services())}


def run_materialize(context: RunContext, progress: Progress) -> Mapping[str, Any]:
    """Check that no snapshot knows the future, and write the newest row of every entity to the online store."""
    # Brings Feast along, which takes seconds to import; the plan of a run needs this module too.
    from trainers.data.leak_gate import check_for_leaks

    store, log = open_store(context.path(REPO)), EventLog(context.path(EVENT_LOG))
    spec, repo = log.spec, manifest(context)
    figures = check_for_leaks(log, store, context.path(REPO), repo, progress, seed=context.config.seed)
    newest = spec.window.until + spec.publish_delay
    daily, static = daily_views(repo.embeddings), static_views(repo)
    materialize(store, daily, static, newest, progress)
    return {"feature_views": len(daily) + len(static), "newest": newest.isoformat(), **figures}


def daily_views(versions: Iterable[EmbeddingVersion]) -> list[str]:
    """Views with a snapshot a day: activity, and the vectors of these versions."""
    activity = [activity_view(entity) for entity in ENTITIES]
    return activity + [embedding_view(entity, each.model, each.version) for each in versions for entity in ENTITIES]


def static_views(repo: RepoManifest) -> list[str]:
    """Views of attributes and long histories, whose rows say themselves from when they hold."""
    attributes = [attributes_view(entity) for entity in ENTITIES if repo.attributes(entity)]
    return attributes + [history_view(name) for name in repo.histories]


def materialize(
    store: FeatureStore, daily: Sequence[str], static: Sequence[str], newest: datetime, progress: Progress
) -> None:
    """Write the newest snapshot of each daily view and all rows of the static ones to the online store.

    Args:
        newest: Moment from which the newest snapshots may be used.
    """
    # Feast prints what it materializes to standard output, which belongs to our own results.
    with progress.stage("materialize", len(daily) + len(static)) as stage, redirect_stdout(StringIO()):
        for view in daily:
            # Only the last snapshot is live: an entity that it lacks has left the retention window.
            store.materialize(newest - timedelta(hours=23), newest, [view])
            stage.advance()
        for view in static:
            store.materialize(datetime(1970, 1, 2, tzinfo=UTC), newest, [view])
            stage.advance()
