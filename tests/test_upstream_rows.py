"""The rows of a small run as each upstream model learns from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from tests.data.small_repo import SmallRepo
from tests.upstream import worlds
from trainers.data.active_entities import EntityFiles
from trainers.data.upstream_data import UpstreamRows, UpstreamSpecs, read_rows, row_index, upstream_specs
from trainers.progress import SILENT, SilentProgress
from trainers.upstream.recipes import tiny
from trainers.upstream_rows import domain_tasks, model_stream, of_tasks, walk_data
from trainers.upstream_steps import upstream_trainer

LATE = replace(tiny(), delayed_feedback="fake_negatives")


@pytest.fixture(scope="module")
def specs(small_repo: SmallRepo) -> UpstreamSpecs:
    """Inputs of the towers."""
    return upstream_specs(small_repo.log, small_repo.manifest, small_repo.offline, small_repo.spec.window.train_from)


@pytest.fixture(scope="module")
def rows(small_repo: SmallRepo, specs: UpstreamSpecs, tmp_path_factory: pytest.TempPathFactory) -> UpstreamRows:
    """Every impression of the walk."""
    until, folder = small_repo.spec.window.until, tmp_path_factory.mktemp("rows")
    return read_rows(small_repo.log, small_repo.store, specs, SILENT, until=until, folder=folder)


def test_unified_model_learns_every_label_of_both_domains_once(small_repo: SmallRepo, rows: UpstreamRows) -> None:
    streams = {model: model_stream(small_repo.log, rows.index, model, tiny()) for model in ("ctr", "cvr", "unified")}
    told = {model: (~np.isnan(stream.labels)).sum(axis=0).tolist() for model, stream in streams.items()}
    assert told["unified"] == [*told["ctr"], *told["cvr"]]
    assert told["unified"] == (~np.isnan(rows.index.labels)).sum(axis=0).tolist()


def test_one_model_of_both_domains_trains_and_embeds(
    small_repo: SmallRepo, specs: UpstreamSpecs, rows: UpstreamRows
) -> None:
    data = walk_data(small_repo.log, rows, "unified", LATE, EntityFiles(small_repo.folder))
    assert data.tasks == domain_tasks(small_repo.log, "unified") == ("click", "purchase")
    assert data.stream.fake_negatives == {"purchase"}
    trainer = upstream_trainer(small_repo.log, specs, LATE, "unified", seed=1)
    chosen = np.arange(min(600, len(data.known_at)))
    with SilentProgress().stage("fit") as stage:
        loss = trainer.fit(data.stream, chosen, lr=1e-3, rng=np.random.default_rng(1), stage=stage)
    assert np.isfinite(loss)
    vectors = trainer.embed("user", data.stream.examples.take(chosen[:3]))
    assert vectors.shape == (3, LATE.embedding_dim)


@pytest.mark.parametrize("model", ["cvr", "unified"])
def test_days_of_a_walk_are_those_of_a_log_that_ends_with_them(
    small_repo: SmallRepo, rows: UpstreamRows, model: str
) -> None:
    cutoff = small_repo.spec.window.test_from - timedelta(days=1)
    micros = round(cutoff.timestamp() * 1e6)
    for recipe in (tiny(), LATE):
        whole = model_stream(small_repo.log, rows.index, model, recipe)
        known = whole.take(np.flatnonzero(whole.known_at < micros))
        ended = model_stream(small_repo.log, row_index(small_repo.log, cutoff), model, recipe)
        ended = ended.take(np.flatnonzero(ended.known_at < micros))
        assert len(known.rows) > 0
        for field in ("rows", "known_at", "labels"):
            np.testing.assert_array_equal(getattr(known, field), getattr(ended, field))


def test_a_walk_of_some_tasks_learns_their_labels_alone() -> None:
    stream, first = worlds.rows(20), worlds.rows(8, seed=5)
    data = of_tasks(worlds.data(stream, worlds.known_at(20), (first,)), ("like",))
    assert data.tasks == ("like",)
    np.testing.assert_array_equal(data.stream.examples.labels, stream.examples.labels[:, 1:])
    for _ in range(2):
        (chunk,) = data.history
        np.testing.assert_array_equal(chunk.examples.labels, first.examples.labels[:, 1:])
        np.testing.assert_array_equal(chunk.user_ids, first.user_ids)
