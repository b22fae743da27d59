"""The ways that `make bench-training` measures, at sizes that take no time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.figures.training_tables import EMBEDDING, FLOPS, GPU, INPUTS, TRAINING
from tests.benchmarks.training_paths import accelerator
from tests.benchmarks.training_paths.made_rows import Sizes, made_rows, made_users, upstream_config
from tests.benchmarks.training_paths.plain_loop import PlainLoop, RowDataset
from tests.benchmarks.training_paths.summary import (
    Embedded,
    Measured,
    Origin,
    embedding_row,
    gpu_rows,
    training_rows,
)
from tests.benchmarks.training_paths.ways import CUTOFF, EMBED, MATMUL, PLAIN, TRAIN, Repetition, Setup, Ways
from tests.benchmarks.training_paths.workers import rate
from trainers.upstream import recipes
from trainers.upstream.trainer import UpstreamTrainer
from trainers.upstream.vector_files import read_vectors

SIZES = Sizes(user_dense=3, pin_dense=2, user_buckets=64, pin_buckets=64)
RECIPE = replace(recipes.tiny(), batch_size=16)
ORIGIN = Origin(machine="invented", commit="0123", params={"batch_size": 10, "repeats": 2, "processes": 2})


def setup(folder: Path) -> Setup:
    return Setup(recipe=RECIPE, sizes=SIZES, num_examples=64, num_entities=40, seconds=0.001, folder=folder)


def test_made_rows_are_what_the_towers_read() -> None:
    rows = made_rows(SIZES, 40, seed=1)
    output = UpstreamTrainer(upstream_config(RECIPE, SIZES), RECIPE, seed=1).model(rows.examples.tensors(np.arange(40)))
    assert output.user.shape == output.pin.shape == (40, RECIPE.embedding_dim)
    assert set(np.unique(rows.examples.labels)) == {0.0, 1.0}


def test_made_users_come_in_chunks_with_keys_of_their_own() -> None:
    chunks = list(made_users(SIZES, 25, chunk=10, seed=1))
    assert [len(examples) for _, examples in chunks] == [10, 10, 5]
    assert np.concatenate([keys for keys, _ in chunks]).tolist() == list(range(25))


def test_plain_loop_reads_the_rows_that_the_trainer_reads() -> None:
    rows = made_rows(SIZES, 20, seed=1)
    own, plain = rows.tensors(np.array([7])), RowDataset(rows)[7]
    assert plain.keys() == own.keys() - {"rows"}
    for name, values in plain.items():
        np.testing.assert_array_equal(np.asarray(own[name][0]), np.asarray(values))


def test_plain_loop_learns() -> None:
    rows = made_rows(SIZES, 64, seed=1)
    loop = PlainLoop(upstream_config(RECIPE, SIZES, sparse=False), RECIPE, seed=1)
    first = loop.fit(rows)
    for _ in range(5):
        last = loop.fit(rows)
    assert last < first


@pytest.mark.parametrize(("way", "units"), [(TRAIN, 64), (PLAIN, 64), (EMBED, 40)])
def test_way_counts_the_work_that_it_did(tmp_path: Path, way: str, units: int) -> None:
    done = Ways(setup(tmp_path)).repeat(way)
    assert done.units == units
    assert 0.0 <= done.input_seconds < done.seconds
    assert (done.input_seconds > 0.0) == (way == TRAIN)


def test_embedding_writes_a_vector_for_every_user(tmp_path: Path) -> None:
    Ways(setup(tmp_path)).repeat(EMBED)
    keys, vectors = read_vectors(tmp_path / "vectors.parquet", "user", RECIPE.embedding_dim)
    assert keys.tolist() == list(range(40))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert (tmp_path / "entities" / "user" / f"date={CUTOFF:%Y-%m-%d}").is_dir()


def test_operations_of_a_step_are_more_than_those_of_its_first_layer(tmp_path: Path) -> None:
    ways = Ways(setup(tmp_path))
    mix = 2 * 3 * (4 + 25 + 1 + 4) * RECIPE.token_dim * RECIPE.hidden_tokens * RECIPE.token_dim
    assert ways.flops_per_example() > 0.9 * mix
    assert ways.num_parameters > (64 + 64) * RECIPE.token_dim


def test_rates_of_processes_add_up() -> None:
    assert rate([Repetition(units=10, seconds=2.0), Repetition(units=10, seconds=1.0)]) == 15.0


def test_rows_of_training_are_medians_of_the_rounds() -> None:
    rounds = {
        TRAIN: [[Repetition(units=10, seconds=1.0, input_seconds=0.01)] * 2] * 2
        + [[Repetition(units=10, seconds=0.5, input_seconds=0.01)] * 2],
        PLAIN: [[Repetition(units=10, seconds=4.0)] * 2] * 3,
        MATMUL: [[Repetition(units=1e11, seconds=1.0)] * 2] * 3,
    }
    peaks = {TRAIN: 100.0, PLAIN: 200.0}
    measured = Measured(rounds=rounds, peak_mb=peaks, flops_per_example=1e9, num_parameters=7)
    training, flops, inputs = training_rows(measured, ORIGIN)
    assert (training.name, training.ours, training.stock, training.spread) == (TRAINING, 20.0, 5.0, 20.0)
    assert (flops.name, flops.ours, flops.raw) == (FLOPS, 20.0, 200.0)
    assert (inputs.name, inputs.ours, inputs.params["step_ms"]) == (INPUTS, 10.0, 1000.0)


def test_row_of_embedding_stands_beside_the_training_rate() -> None:
    embedded = Embedded(num_entities=40, rounds=[[Repetition(units=40, seconds=0.5)]], peak_mb=300.0)
    row = embedding_row(embedded, 20.0, ORIGIN)
    assert (row.name, row.ours, row.raw, row.peak_mb, row.params["entities"]) == (EMBEDDING, 80.0, 20.0, 300.0, 40)


def test_accelerator_steps_are_counted_by_batch_size() -> None:
    found = accelerator.measure(RECIPE, SIZES, repeats=2, steps=1, device="cpu", batch_sizes=(8, 16), matrix=16)
    assert [each.batch_size for each in found] == [8, 16]
    rows = gpu_rows(found, None, 1e6, ORIGIN)
    assert [row.params["batch_size"] for row in rows] == [8, 16]
    assert all(row.ours and row.ours > 0.0 for row in rows)


def test_accelerator_row_says_why_it_was_skipped() -> None:
    (row,) = gpu_rows([], "no GPU", 1e6, ORIGIN)
    assert (row.name, row.ours, row.params) == (GPU, None, {"skipped": "no GPU"})
    assert (accelerator.skipped() is None) == torch.cuda.is_available()
