"""Days of a version made by its own walk: no day knows more than a model knew that had only walked so far.

The walk trains through the days one after the other and keeps its weights at each that is wanted; then the days are
embedded side by side, as many at a time as memory allows. Both go on where they were stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from feature_repo.contract import ENTITIES
from feature_repo.layout import open_store
from feature_repo.versions import VersionRecord
from trainers import checkpoint
from trainers.data.active_entities import ActiveEntities, EntityFiles
from trainers.data.older_vectors import older_vectors
from trainers.data.upstream_data import UpstreamSpecs, read_rows
from trainers.forked import map_forked
from trainers.life.day_training import compatibility
from trainers.life.home import INPUTS_FILE, Home, embedding_version, upstream_recipe
from trainers.life.older_version import compatible_with
from trainers.progress import Progress
from trainers.torch_setup import set_up_torch
from trainers.upstream.trainer import UpstreamTrainer
from trainers.upstream.walk import WalkData, WalkPlan, daily_file, walk, write_embeddings
from trainers.upstream_rows import history_reader, walk_data
from trainers.upstream_steps import upstream_trainer

PROCESS_MB = 400.0
"""Memory of a process that embeds, its model and inputs not counted."""
MEMORY_SHARE = 0.5
"""Share of the free memory that embedding may take."""


def walk_days(
    home: Home, record: VersionRecord, cutoffs: Sequence[datetime], out: Path, progress: Progress
) -> list[dict[str, Any]]:
    """Train the version from its beginning through the last cut-off, and keep its weights at each that is given.

    Args:
        cutoffs: Days that are wanted, increasing.
        out: Folder of the walk's checkpoint and of the weights.

    Returns:
        The progressive evaluation, as `walk` does.
    """
    # One thread, as in a process of its own: a walk is the same wherever it is made.
    set_up_torch(1)
    specs = UpstreamSpecs.load(home.folder(record.key) / INPUTS_FILE)
    trainer = trainer_of(home, record, specs)
    last = cutoffs[-1]
    first = home.log.spec.window.features_from
    plan = WalkPlan(
        model=record.model,
        cutoffs=tuple(first + timedelta(days=day) for day in range((last - first).days + 1)),
        embed_from=cutoffs[0],
        out=out,
        seed=record.seed,
    )
    wanted = set(cutoffs)

    def keep(cutoff: datetime) -> None:
        if cutoff in wanted:
            checkpoint.save(_weights(out, cutoff), trainer.model)

    return walk(trainer, _data(home, record, specs, last, out, progress), plan, progress, keep=keep)


def embed_days(
    home: Home, record: VersionRecord, cutoffs: Sequence[datetime], out: Path, progress: Progress
) -> dict[str, Any]:
    """Embed the entities of each day with the weights of that day; days that are there already are left alone.

    Args:
        out: Folder that `walk_days` kept the weights in; the vectors go to the version's folder.

    Returns:
        Figures: days made, and how many at a time.
    """
    folder = home.folder(record.key)
    missing = [cutoff for cutoff in cutoffs if not all(daily_file(folder, e, cutoff).is_file() for e in ENTITIES)]
    if not missing:
        return {"days": 0}
    specs = UpstreamSpecs.load(folder / INPUTS_FILE)
    retention = timedelta(days=upstream_recipe(record).retention_days)
    entities = EntityFiles(out / "entities")
    entities.write(
        ActiveEntities(home.log, open_store(home.repo_dir), specs, home.offline, retention), missing, progress
    )

    def embed(cutoff: datetime, progress: Progress) -> None:
        del progress
        trainer = trainer_of(home, record, specs)
        checkpoint.load(_weights(out, cutoff), trainer.model)
        for entity in ENTITIES:
            file, subject = daily_file(folder, entity, cutoff), f"{record.key} at {cutoff:%Y-%m-%d}"
            write_embeddings(trainer, entity, entities(entity, cutoff), file, subject)

    inputs_mb = max(file.stat().st_size for file in (out / "entities").rglob("*.safetensors")) / 2**20
    weights_mb = _weights(out, missing[0]).stat().st_size / 2**20
    workers = processes(home.context.config.threads, PROCESS_MB + 2 * weights_mb + 2 * inputs_mb)
    map_forked(embed, missing, name=f"embed days of {record.key}", workers=workers, progress=progress)
    return {"days": len(missing), "at_a_time": workers}


def processes(threads: int, each_mb: float) -> int:
    """Processes that run at a time: one a thread, fewer where memory is short, at least one."""
    free_mb = _free_mb()
    return threads if free_mb is None else max(1, min(threads, int(MEMORY_SHARE * free_mb / each_mb)))


def trainer_of(home: Home, record: VersionRecord, specs: UpstreamSpecs) -> UpstreamTrainer:
    """An untrained model of a version."""
    recipe = upstream_recipe(record)
    return upstream_trainer(home.log, specs, recipe, record.model, record.seed, compatibility(home, record))


def _data(
    home: Home, record: VersionRecord, specs: UpstreamSpecs, until: datetime, out: Path, progress: Progress
) -> WalkData:
    store = open_store(home.repo_dir)
    rows = read_rows(home.log, store, specs, progress, until=until, folder=out)
    history = history_reader(home.log, home.offline, specs, record.model, record.seed)
    older = compatible_with(home, record)
    if older is not None:
        targets = older_vectors(store, rows.index.frame, embedding_version(older), progress)
        rows = rows.with_inputs(dict(targets))
    recipe = upstream_recipe(record)
    return walk_data(home.log, rows, record.model, recipe, EntityFiles(home.run), history)


def _weights(out: Path, cutoff: datetime) -> Path:
    return out / "weights" / f"date={cutoff:%Y-%m-%d}.safetensors"


def _free_mb() -> float | None:
    """Memory that processes may still take; none where the system does not say."""
    file = Path("/proc/meminfo")
    if not file.is_file():
        return None
    lines = (line.split() for line in file.read_text().splitlines())
    return next((int(parts[1]) / 1024 for parts in lines if parts[0] == "MemAvailable:"), None)
