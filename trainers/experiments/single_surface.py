"""A team that has the log of its own surface alone: its features, its training rows, and whatever vectors it is given.

Its event log, activity features and feature repo are made anew from the impressions of the surface; it has no long
histories. The vectors are those that the run published, from an upstream that sees every surface.
Dims: N rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from feature_repo.contract import ENTITIES, embedding_view
from feature_repo.layout import apply, create_repo
from trainers.data.activity_log import parquet_relation
from trainers.data.attributes import write_attributes
from trainers.data.columns import CONVERSIONS, IMPRESSIONS
from trainers.data.connection import connect, literal
from trainers.data.event_log import EventLog
from trainers.data.ingest import SPEC_FILE
from trainers.data.prepare import EVENT_LOG, OFFLINE, REPO, activity_builder, manifest
from trainers.evaluation.arms import RankerJob
from trainers.evaluation.slices import MIN_SLICE_ROWS
from trainers.evaluation.step import Evaluation
from trainers.experiments.setting import Setting
from trainers.steps import RunContext, remove

SHARE_OF_A_CLASS = 0.04
"""Share of the least number of test rows that must be of either class."""
LARGEST_SHARE = 0.5
"""A surface with a larger share of the impressions than this has no less than upstream has."""
_DONE = "done"


def small_surfaces(job: RankerJob, min_rows: int = MIN_SLICE_ROWS) -> list[str]:
    """Surfaces with enough test rows to judge and few enough of all rows to be a part of the log, sorted."""
    labels, surfaces = job.data.examples.labels[:, job.columns()[0]], job.data.surfaces
    found = []
    for surface in np.unique(surfaces):
        rows = surfaces == surface
        judged = labels[job.split.test][rows[job.split.test]]
        positives = int((judged == 1.0).sum())
        enough = len(judged) >= min_rows and min(positives, len(judged) - positives) >= SHARE_OF_A_CLASS * min_rows
        if enough and rows.mean() <= LARGEST_SHARE:
            found.append(str(surface))
    return found


def surface_evaluation(setting: Setting, surface: str, folder: Path) -> Evaluation:
    """The downstream rows of a team on one surface.

    Args:
        folder: Where its log and features lie, or go.
    """
    context = RunContext(config=replace(setting.context.config, out=folder))
    if not (folder / _DONE).is_file():
        remove(folder)
        _make(setting, surface, context)
        (folder / _DONE).touch()
    return Evaluation(context, setting.progress)


def folder_name(surface: str) -> str:
    """Name of a surface's folder."""
    return re.sub(r"[^A-Za-z0-9]+", "_", surface)


def _make(setting: Setting, surface: str, context: RunContext) -> None:
    whole, now = setting.evaluation.log, datetime.now(UTC)
    _filter_log(whole, surface, context.path(EVENT_LOG))
    log, own = EventLog(context.path(EVENT_LOG)), manifest(context)
    activity_builder(context, log).build(log.spec.cutoffs(), created_timestamp=now)
    write_attributes(log.path, context.path(OFFLINE), own, created_timestamp=now)
    for version in own.embeddings:
        for entity in ENTITIES:
            view = embedding_view(entity, version.model, version.version)
            (context.path(OFFLINE) / view).symlink_to((setting.offline / view).resolve(), target_is_directory=True)
    create_repo(context.path(REPO), own)
    apply(context.path(REPO))


def _filter_log(whole: EventLog, surface: str, out: Path) -> None:
    """Write the part of a log that belongs to a surface; users and Pins are everyone's."""
    out.mkdir(parents=True)
    spec = whole.spec.model_copy(update={"histories": ()})
    (out / SPEC_FILE).write_text(spec.model_dump_json())
    for path in (whole.users_path, whole.pins_path):
        if path is not None:
            (out / path.name).symlink_to(path.resolve())
    with connect(temp=out / ".spill") as connection:
        for file in _files(whole.path):
            target = out / file.relative_to(whole.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            rows = f"SELECT * FROM {parquet_relation(file)} WHERE surface = {literal(surface)}"
            connection.execute(f"COPY ({rows}) TO {literal(target)} (FORMAT parquet)")
    remove(out / ".spill")


def _files(log: Path) -> Iterator[Path]:
    for table in (IMPRESSIONS, CONVERSIONS):
        yield from sorted((log / table).glob("date=*/[!.]*.parquet"))
