"""What a consumer reads beside the run's own features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.contract import EmbeddingVersion
from trainers.data.ranking_data import vector_input
from trainers.data.version_vectors import version_vectors
from trainers.evaluation.arms import Arm, arm_specs, hidden_vectors, ranker_config
from trainers.experiments import consumer_inputs
from trainers.experiments.consumer_inputs import with_histories, with_past, with_version
from trainers.experiments.setting import Setting

DAY = 86_400_000_000


def test_past_vectors_are_those_that_a_consumer_had_so_many_days_before(opened: Setting) -> None:
    job = with_past(opened.job, opened.evaluation.store, opened.version, 2)
    data, rows = job.data, opened.job.split.test[:40]
    assert [column[-13:] for column in job.past] == ["2 days before", "1 days before"]
    first = len(opened.job.data.user.vectors)
    for ago, name in ((2, f"user_vector_{first}"), (1, f"user_vector_{first + 1}")):
        moments = data.event_micros[rows] - ago * DAY
        expected = version_vectors(opened.evaluation.store, opened.version, "user", data.user_ids[rows], moments)
        np.testing.assert_array_equal(data.examples.inputs[name][rows], expected)
    assert not np.array_equal(
        data.examples.inputs[f"user_vector_{first}"], data.examples.inputs[f"user_vector_{first + 1}"]
    )


def test_past_vectors_are_read_as_a_sequence_and_hidden_with_those_of_today(opened: Setting) -> None:
    job = with_past(opened.job, opened.evaluation.store, opened.version, 2)
    specs = arm_specs(job, opened.arm)
    config = ranker_config(job, opened.arm, *specs)
    assert config.past is not None
    assert (config.past.length, config.past.vector_dim) == (2, opened.version.dim)
    assert config.past_vectors == ("user_vector_1", "user_vector_2")
    assert config.user.fields.vector_dims == (opened.version.dim,)
    assert hidden_vectors(opened.arm, *specs, job.past)[0] == ("user_vector_0", "user_vector_1", "user_vector_2")


def test_vectors_of_one_more_version_are_read_where_an_arm_names_it(opened: Setting) -> None:
    job, other = opened.job, EmbeddingVersion(model="cross", version=1, dim=3)
    count = len(job.data.user_ids)
    vectors = {entity: np.full((count, 4), number, np.float32) for number, entity in enumerate(("user", "pin"))}
    wider = with_version(job, other, vectors)
    arm = Arm(inputs="both", versions=(opened.version, other))
    for side, value in zip(arm_specs(wider, arm), (0.0, 1.0), strict=True):
        assert side.vectors[-1].dim == 3
        full = wider.data.user if side.side == "user" else wider.data.pin
        assert (wider.data.examples.inputs[vector_input(full, other)] == value).all()
    assert [len(side.vectors) for side in arm_specs(wider, opened.arm)] == [
        len(side.vectors) for side in arm_specs(job, opened.arm)
    ]


def test_histories_become_lengths_rates_and_sequences(opened: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows to learn from: on the whole 1 in 4 of the first history is liked; the third row has no history."""
    job = opened.job
    count = len(job.data.user_ids)
    lengths = np.tile([[4.0, 1.0]], (count, 1))
    lengths[1] = [0.0, 0.0]
    lengths[2] = [np.nan, np.nan]
    sequences = [np.full((count, 5), number, np.int32) for number in (3, 4)]
    monkeypatch.setattr(consumer_inputs, "_read", lambda *_: (lengths, sequences))
    manifest = replace(opened.evaluation.manifest, histories=("watched", "like"))
    found = with_histories(
        replace(job, split=replace(job.split, train=np.arange(3))), opened.evaluation.store, manifest
    )
    width = len(job.data.user.dense)
    assert [item.column for item in found.data.user.dense[width:]] == [
        "history_watched__length",
        "history_like__length",
        "history_like__rate_of_watched",
    ]
    dense = found.data.examples.inputs["user_dense"]
    values, flags = np.split(dense, 2, axis=1)
    np.testing.assert_array_equal(values[:, :width], job.data.examples.inputs["user_dense"][:, :width])
    np.testing.assert_allclose(values[:3, width], [1.0, -1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(values[0, width + 2], 0.0, atol=1e-6)
    assert flags[:3, width:].tolist() == [[0.0] * 3, [0.0] * 3, [1.0] * 3]
    assert [item.length for item in found.data.user.ids[-2:]] == [manifest.sequence_length] * 2
    first = len(job.data.user.ids)
    np.testing.assert_array_equal(found.data.examples.inputs[f"user_id_{first + 1}"], sequences[1])
