"""One day of training: each version learns the day's rows and a sample of earlier ones, then embeds who is active.

It is the day that a longer walk would have made: the same rows in the same order with the same random choices, of
which only those needed are read.
Dims: N rows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.contract import ENTITIES, write_atomically
from feature_repo.layout import open_store
from feature_repo.versions import VersionRecord
from trainers.data.active_entities import ActiveEntities, EntityFiles, Keys
from trainers.data.examples import Examples
from trainers.data.label_stream import LabelStream
from trainers.data.older_vectors import older_vectors
from trainers.data.upstream_data import RowIndex, UpstreamSpecs, encode_rows, row_index
from trainers.forked import map_forked
from trainers.life.home import INPUTS_FILE, Home, embedding_version, upstream_recipe
from trainers.life.older_version import compatible_with, learned_from
from trainers.life.refreshed import is_continuation
from trainers.progress import Progress
from trainers.torch_setup import set_up_torch
from trainers.upstream.compatibility import Compatibility
from trainers.upstream.recipes import UpstreamRecipe
from trainers.upstream.trainer import UpstreamExamples
from trainers.upstream.walk import (
    CHECKPOINT,
    PROGRESSIVE_FILE,
    DayRows,
    daily_file,
    generator,
    learn_day,
    select_rows,
    write_embeddings,
)
from trainers.upstream_rows import domain_tasks, model_stream, upstream_examples
from trainers.upstream_steps import upstream_trainer

ENTITY_INPUTS = "entities"
"""Folder of the workspace with the inputs of who is embedded, while the day is trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionDay:
    """What one version does on a day."""

    record: VersionRecord
    specs: UpstreamSpecs
    stream: LabelStream
    """What it learns of the day, in the order in which a walk draws it: what is new, then what is replayed."""
    num_new: int
    """New ones of these."""
    random: np.random.Generator
    """Its random choices, those of the replayed rows made."""
    out: Path
    """Folder that the day goes to."""

    @property
    def recipe(self) -> UpstreamRecipe:
        """The recipe that the version is trained with."""
        return upstream_recipe(self.record)


def train_day(
    home: Home, records: Sequence[VersionRecord], cutoff: datetime, workspace: Path, progress: Progress
) -> dict[str, Any]:
    """Train and embed with every version, side by side; those whose day lies in the workspace already are left alone.

    Returns:
        Figures: rows read, and of each version rows learned from and ROC AUC on the new ones before.
    """
    set_up_torch(home.context.config.threads)
    missing = [record for record in records if not (workspace / record.key / PROGRESSIVE_FILE).is_file()]
    if not missing:
        return {}
    index = row_index(home.log, cutoff)
    days = [_version_day(home, record, index, cutoff, workspace / record.key) for record in missing]
    rows = np.unique(np.concatenate([np.empty(0, np.int64), *(day.stream.rows for day in days)]))
    examples = _examples(home, days, index, rows, progress)
    entities = _entities(home, days, cutoff, workspace / ENTITY_INPUTS, progress)

    def train(position: int, progress: Progress) -> dict[str, Any]:
        day = days[position]
        stream = _stream(day, index, examples[position], rows)
        return _train(home, day, stream, entities[position], cutoff, progress)

    workers = home.context.config.threads
    trained = map_forked(train, range(len(days)), name="upstream models", workers=workers, progress=progress)
    shutil.rmtree(workspace / ENTITY_INPUTS)
    figures: dict[str, Any] = {"rows": len(rows)}
    for day, found in zip(days, trained, strict=True):
        figures |= {f"{day.record.key}_{name}": value for name, value in found.items()}
    return figures


def _version_day(home: Home, record: VersionRecord, index: RowIndex, cutoff: datetime, out: Path) -> VersionDay:
    recipe = upstream_recipe(record)
    stream = model_stream(home.log, index, record.model, recipe)
    random = generator(record.seed, record.model, cutoff)
    new, replayed = select_rows(stream.known_at, cutoff - timedelta(days=1), cutoff, recipe.replay, random)
    return VersionDay(
        record=record,
        specs=UpstreamSpecs.load(home.folder(record.key) / INPUTS_FILE),
        stream=stream.take(np.concatenate([new, replayed])),
        num_new=len(new),
        random=random,
        out=out,
    )


def _examples(
    home: Home, days: Sequence[VersionDay], index: RowIndex, rows: Keys, progress: Progress
) -> list[Examples]:
    """The rows as each version reads them: joined once, encoded once for all versions with the same inputs."""
    if not len(rows):
        rows = np.arange(min(1, index.frame.num_rows))
    store = open_store(home.repo_dir)
    distinct = list({id_of(day.specs): day.specs for day in days}.items())
    encoded = dict(
        zip(
            [name for name, _ in distinct],
            encode_rows(store, [specs for _, specs in distinct], index, rows, progress),
            strict=True,
        )
    )
    return [encoded[id_of(day.specs)].with_inputs(_older(home, day.record, index, rows, progress)) for day in days]


def id_of(specs: UpstreamSpecs) -> str:
    """Text that is equal for equal inputs."""
    return json.dumps([each.to_dict() for each in specs.sides()])


def _older(home: Home, record: VersionRecord, index: RowIndex, rows: Keys, progress: Progress) -> dict[str, Any]:
    """Vectors of the version that this one stays compatible with, while there are new ones."""
    older = learned_from(home, record)
    if older is None:
        return {}
    store = open_store(home.repo_dir)
    return dict(older_vectors(store, index.frame.take(rows), embedding_version(older), progress))


def compatibility(home: Home, record: VersionRecord) -> Compatibility | None:
    """How a version's towers were made to be read as an older one; none where they were not.

    One that began as a refused day of another goes on with that one's towers, whose map stays in them unused.
    """
    made = record
    while is_continuation(made):
        made = home.catalogue.version(made.parents[0])
    older = compatible_with(home, made)
    return None if older is None else Compatibility(older_dim=older.dim)


def _entities(
    home: Home, days: Sequence[VersionDay], cutoff: datetime, folder: Path, progress: Progress
) -> list[EntityFiles]:
    """Who is embedded, and their inputs: read once for all versions with the same inputs."""
    # What a killed process left may be of other rows.
    shutil.rmtree(folder, ignore_errors=True)
    store = open_store(home.repo_dir)
    found: dict[tuple[str, int], EntityFiles] = {}
    for day in days:
        name = (id_of(day.specs), day.recipe.retention_days)
        if name not in found:
            retention = timedelta(days=day.recipe.retention_days)
            found[name] = EntityFiles(folder / str(len(found)))
            active = ActiveEntities(home.log, store, day.specs, home.offline, retention)
            found[name].write(active, [cutoff], progress)
    return [found[id_of(day.specs), day.recipe.retention_days] for day in days]


def _stream(day: VersionDay, index: RowIndex, examples: Examples, rows: Keys) -> UpstreamExamples:
    """What the version learns of the day, with its inputs.

    Args:
        examples: Inputs of these rows.
        rows: Positions in the index, increasing.
    """
    return upstream_examples(day.stream, examples.take(np.searchsorted(rows, day.stream.rows)), index)


def _train(
    home: Home, day: VersionDay, stream: UpstreamExamples, entities: EntityFiles, cutoff: datetime, progress: Progress
) -> dict[str, Any]:
    """Go on from the version's checkpoint, and leave the next one and the day's vectors in the workspace."""
    record, num_new = day.record, day.num_new
    trainer = upstream_trainer(home.log, day.specs, day.recipe, record.model, record.seed, compatibility(home, record))
    notes = trainer.load(home.folder(record.key) / CHECKPOINT)
    entries = np.arange(len(day.stream.rows))
    rows = DayRows(stream=stream, new=entries[:num_new], replayed=entries[num_new:])
    tasks = domain_tasks(home.log, record.model)
    with progress.stage(f"train {record.key}", len(rows)) as stage:
        scores = learn_day(trainer, rows, tasks, record.model, cutoff, day.random, stage)
    curve = [*notes["progressive"], *scores]
    for entity in ENTITIES:
        file = daily_file(day.out, entity, cutoff)
        write_embeddings(trainer, entity, entities(entity, cutoff), file, f"{record.key} at {cutoff:%Y-%m-%d}")
    trainer.save(day.out / CHECKPOINT, {"cutoff": cutoff.isoformat(), "progressive": curve})
    # Written last: it says that the day is whole.
    write_atomically(day.out / PROGRESSIVE_FILE, json.dumps(curve) + "\n")
    aucs = {f"{each['task']}_roc_auc": round(each["roc_auc"], 4) for each in scores}
    return {"new": num_new, "replayed": len(entries) - num_new, **aucs}
