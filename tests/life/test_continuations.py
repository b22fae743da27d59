"""Versions that began as a refused day of another go on with that one's towers, checkpoint and all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from feature_repo.versions import Catalogue, VersionRecord, VersionState
from tests.upstream import worlds
from trainers.life.day_training import compatibility
from trainers.life.home import Home
from trainers.life.older_version import compatible_with, learned_from, no_second_walk
from trainers.progress import SILENT
from trainers.upstream.trainer import UpstreamTrainer


def home_with(folder: Path, *records: VersionRecord) -> Home:
    """A home that is a catalogue and nothing else."""
    catalogue = Catalogue(f"sqlite:///{folder}/catalogue.db")
    for record in records:
        catalogue.create_version(record, who="a@b", why="a test")
    return cast(Home, SimpleNamespace(catalogue=catalogue))


def version(number: int, **fields: Any) -> VersionRecord:
    """A version of `ctr`, as wide as the models of the worlds."""
    return VersionRecord(key=f"ctr_v{number}", model="ctr", version=number, dim=8, **fields)


def test_continuation_of_a_compatible_version_takes_up_its_checkpoint(tmp_path: Path) -> None:
    second = version(2, parents=("ctr_v1",), alignment="backward_compatible")
    third = version(3, parents=("ctr_v2",), alignment="procrustes")
    fourth = version(4, parents=("ctr_v3",), alignment="procrustes")
    home = home_with(tmp_path, version(1), second, third, fourth)
    data = worlds.rows(64)
    refused = UpstreamTrainer(worlds.CONFIG, worlds.RECIPE, 3, compatibility(home, second))
    with SILENT.stage("fit") as stage:
        refused.fit(data, np.arange(64), lr=0.01, rng=np.random.default_rng(0), stage=stage)
    refused.save(tmp_path / "checkpoint.safetensors", {"cutoff": "2024-01-08"})
    for record in (third, fourth):
        assert compatible_with(home, record) is None
        trainer = UpstreamTrainer(worlds.CONFIG, worlds.RECIPE, 4, compatibility(home, record))
        assert trainer.load(tmp_path / "checkpoint.safetensors") == {"cutoff": "2024-01-08"}
        assert np.array_equal(trainer.embed("pin", data.examples), refused.embed("pin", data.examples))
    assert compatibility(home, version(1)) is None


def test_compatible_version_learns_from_the_older_one_until_that_is_given_up(tmp_path: Path) -> None:
    second = version(2, parents=("ctr_v1",), alignment="backward_compatible")
    home = home_with(tmp_path, version(1), second)
    author = {"who": "a@b", "why": "a test"}
    move = home.catalogue.move_version
    assert learned_from(home, second) is None
    move("ctr_v1", VersionState.BACKFILLING, expected=VersionState.TRAINING, **author)
    home.catalogue.update_version("ctr_v1", space_id="a" * 12, **author)
    move("ctr_v1", VersionState.CANDIDATE, expected=VersionState.BACKFILLING, **author)
    older = learned_from(home, second)
    assert older is not None
    assert older.key == "ctr_v1"
    home.catalogue.retire_version("ctr_v1", **author)
    assert learned_from(home, second) is None
    assert no_second_walk(home, second) is None
    home.catalogue.mark_pruned("version ctr_v1", **author)
    assert learned_from(home, second) is None
    assert no_second_walk(home, second) == "learned from the pruned ctr_v1"
