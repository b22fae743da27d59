"""An upstream model as a recipe and a dataset make it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_repo.encoding import IdInput, InputSpec
from tests.data.small_repo import SmallRepo
from trainers.data.upstream_data import UpstreamSpecs, read_rows, row_index, upstream_specs
from trainers.progress import SILENT
from trainers.upstream.recipes import UpstreamRecipe, tiny
from trainers.upstream_steps import id_tables, id_tables_mb, upstream_trainer


def test_memory_of_id_tables_counts_every_table_with_its_moments() -> None:
    user = InputSpec(
        side="user",
        ids=(
            IdInput(column="user_id", buckets=1024),
            IdInput(column="sequence", buckets=2048, length=5),
            IdInput(column="user_id", buckets=1024, hash=1),
        ),
    )
    pin = InputSpec(side="pin", ids=(IdInput(column="pin_id", buckets=2048),))
    specs = UpstreamSpecs(user=user, pin=pin, context=InputSpec(side="context"))
    # Two tables of users and one of Pins, which sequences share; 8 wide, three numbers of four bytes for every weight.
    assert id_tables_mb(specs, UpstreamRecipe(token_dim=8)) == (1024 + 1024 + 2048) * 8 * 12 / 2**20


def test_task_weights_must_name_tasks_of_the_dataset(small_repo: SmallRepo) -> None:
    recipe = replace(tiny(), task_weights=(("click", 2.0), ("klick", 1.0)))
    specs = UpstreamSpecs(user=InputSpec(side="user"), pin=InputSpec(side="pin"), context=InputSpec(side="context"))
    with pytest.raises(ValueError, match=r"task_weights must name tasks of the dataset, click, .*\(got klick\)"):
        upstream_trainer(small_repo.log, specs, recipe, "ctr", seed=1)


def test_recipe_with_several_hashes_and_a_threshold_trains_on_rows_of_the_log(
    small_repo: SmallRepo, tmp_path: Path
) -> None:
    recipe = replace(
        tiny(), id_hashes=2, min_id_count=2, max_id_buckets=256, experts="ple", task_weighting="uncertainty"
    )
    window = small_repo.spec.window
    specs = upstream_specs(
        small_repo.log, small_repo.manifest, small_repo.offline, window.train_from, id_tables(recipe)
    )
    trainer = upstream_trainer(small_repo.log, specs, recipe, "ctr", seed=1)
    found = read_rows(small_repo.log, small_repo.store, specs, SILENT, until=window.train_from, folder=tmp_path)
    rows = found.examples.with_labels([0])
    assert len(row_index(small_repo.log, window.train_from).labels) == len(rows)
    tables = trainer.model.user_tower.side.fields.ids
    assert len(tables) == 2
    inputs = rows.tensors(np.arange(min(len(rows), 64)))
    trainer.model.count_ids(inputs)
    assert int(tables["0"].counts.sum()) == len(inputs["user_id_0"])
    assert trainer.score(rows, np.arange(3)).shape == (3, 1)
