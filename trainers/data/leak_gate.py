"""The check between a run's snapshots and everything that reads them: nothing that knows the future goes live.

Proof stops the run; statistical grounds for suspicion are reported, because an honest attribute may be that good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from feast import FeatureStore

from feature_repo.contract import (
    EVENT_TIMESTAMP,
    HISTORY_SERVICE,
    EmbeddingVersion,
    RepoManifest,
    consumer_services,
    history_view,
    join_key,
    service_name,
)
from trainers.data.event_log import EventLog
from trainers.data.frames import point_in_time_frame
from trainers.data.leaks import LeakError, check_joins, check_labels, check_stamps
from trainers.progress import Progress

JOINED_ROWS = 30
"""Impressions whose joins are found again without any join."""
LABELLED_ROWS = 10_000
"""Impressions on which features are compared with the labels."""
_DAY = timedelta(days=1)


def check_for_leaks(
    log: EventLog, store: FeatureStore, repo: Path, manifest: RepoManifest, progress: Progress, *, seed: int
) -> Mapping[str, Any]:
    """Hold the snapshots of every view that ranking and retrieval read against the training and test days.

    Returns:
        Figures: impressions looked at, and as `leak_warnings` what is worth a look.

    Raises:
        LeakError: A snapshot is stamped before it could be known, or a join hands out a value from the future.
    """
    service = service_name("ranking", manifest.embeddings)
    views = consumer_services(manifest)[service].views
    histories = tuple(history_view(name) for name in manifest.histories)
    with progress.stage("check for leaks", 2 * len(views) + len(histories) + 1) as stage:
        findings = []
        for view in views:
            findings += check_stamps(repo, view, log.spec.publish_delay)
            stage.advance()
        frame = point_in_time_frame(store, _impressions(log, seed), service)
        few = frame.take(_places(frame.num_rows, JOINED_ROWS, seed))
        if histories:
            few = _with_histories(store, few)
        for view in (*views, *histories):
            findings += check_joins(repo, few, view)
            stage.advance()
        if findings:
            raise LeakError(findings)
        warnings = check_labels(frame, [task.name for task in log.spec.tasks], seed=seed)
        stage.advance()
    return {"leak_checked": frame.num_rows, "leak_warnings": [finding.text for finding in warnings]}


def check_days_for_leaks(
    log: EventLog,
    store: FeatureStore,
    repo: Path,
    versions: Sequence[EmbeddingVersion],
    cutoffs: Sequence[datetime],
    progress: Progress,
) -> Mapping[str, Any]:
    """Hold new days of versions against the impressions around them: what is proof is looked for, and only that.

    Args:
        versions: Versions with views in the feature repo.
        cutoffs: Their new days, increasing.

    Returns:
        Figures: impressions whose joins were found again.

    Raises:
        LeakError: A snapshot is stamped before it could be known, or a join hands out a value from the future.
    """
    manifest = RepoManifest.load(repo / "data")
    services = [consumer_services(manifest)[service_name("ranking", (version,))] for version in versions]
    few = _around(log, cutoffs)
    oldest = cutoffs[0] - timedelta(hours=max(manifest.activity_ttl_hours, *(each.ttl_hours for each in versions)))
    findings = []
    with progress.stage("check for leaks", len(services)) as stage:
        for service in services:
            frame = point_in_time_frame(store, few, service.name)
            for view in service.views:
                findings += check_stamps(repo, view, log.spec.publish_delay, since=cutoffs[0])
                findings += check_joins(repo, frame, view, since=oldest - 2 * _DAY)
            stage.advance()
    if findings:
        raise LeakError(findings)
    return {"leak_checked": few.num_rows}


def _with_histories(store: FeatureStore, rows: pa.Table) -> pa.Table:
    """The rows with the long histories, of which retrieval's own service has nothing but the user."""
    keys = rows.select([join_key("user"), EVENT_TIMESTAMP])
    joined = point_in_time_frame(store, keys, HISTORY_SERVICE).drop_columns(keys.column_names)
    for field in joined.schema:
        rows = rows.append_column(field, joined[field.name])
    return rows


def _around(log: EventLog, cutoffs: Sequence[datetime]) -> pa.Table:
    """Some impressions from the day before the first cut-off to the day after the last one, as far as the log goes."""
    rows = log.impressions(cutoffs[0] - _DAY, cutoffs[-1] + _DAY)
    rows = rows.select([join_key("user"), join_key("pin"), EVENT_TIMESTAMP])
    return rows.take(_places(rows.num_rows, JOINED_ROWS, seed=0))


def _impressions(log: EventLog, seed: int) -> pa.Table:
    """A sample of the training and test days with the label of every task."""
    window = log.spec.window
    rows = log.task_labels(window.train_from, window.until, known_by=window.until)
    columns = [join_key("user"), join_key("pin"), EVENT_TIMESTAMP, *(task.name for task in log.spec.tasks)]
    return rows.select(columns).take(_places(rows.num_rows, LABELLED_ROWS, seed))


def _places(num_rows: int, wanted: int, seed: int) -> pa.Array:
    chosen = np.random.default_rng(seed).permutation(num_rows)[:wanted]
    return pa.array(np.sort(chosen))
