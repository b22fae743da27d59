"""A run to experiment on: the small repo, with room for what an experiment writes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tests.data.small_repo import SmallRepo
from tests.upstream.spaces import mapped, rotation
from trainers import run_config
from trainers.experiments.setting import Setting
from trainers.experiments.variants import published
from trainers.markers import Marker, write_marker
from trainers.progress import SilentProgress
from trainers.run_config import RunConfig
from trainers.steps import RunContext
from trainers.upstream.frame import Frame

PARTS = ("event_log", "feature_repo", "upstream")


def context(repo: SmallRepo, folder: Path) -> RunContext:
    """A run whose parts are those of the small repo."""
    folder.mkdir(parents=True)
    for name in PARTS:
        (folder / name).symlink_to(repo.folder / name)
    config = RunConfig(dataset="synthetic", out=folder, recipe="tiny", num_seeds=1, threads=1)
    run_config.save(config)
    mark_published(folder, "first")
    return RunContext(config=config)


def mark_published(folder: Path, fingerprint: str) -> None:
    """Say that the run's step `publish` is done."""
    marker = Marker(
        step="publish",
        fingerprint=fingerprint,
        inputs={},
        files=[],
        seconds=1.0,
        peak_mb=1.0,
        figures={},
        finished=datetime(2024, 1, 1, tzinfo=UTC).isoformat(),
    )
    write_marker(folder, marker)


def setting(repo: SmallRepo, folder: Path, seeds: int = 1, retrains: int = 1) -> Setting:
    """The run opened for experiments."""
    return Setting(context(repo, folder), SilentProgress(), seeds=seeds, retrains=retrains)


def turned(opened: Setting) -> Iterator[tuple[datetime, Frame]]:
    """The run's published vectors in another basis: a retrained model that learned exactly the same."""
    turn = rotation(opened.version.dim, 7)
    for cutoff, frame in published(opened.offline, opened.version, opened.cutoffs()):
        yield cutoff, mapped(frame, turn, turn)


def nothing(*arguments: object, **options: object) -> None:
    """In the place of a training that a test does without."""
    del arguments, options


def kept(days: Iterator[tuple[datetime, Frame]]) -> dict[datetime, Frame]:
    """Days at hand, by cut-off."""
    return dict(days)


def unit(*rows: tuple[float, float]) -> np.ndarray:
    """Rows as float32."""
    return np.array(rows, np.float32)
