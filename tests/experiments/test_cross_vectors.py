"""Cross representations per entity."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np

from tests.data.tiny_log import at
from tests.upstream import worlds
from trainers.experiments.cross_vectors import keep_cross, mean_by_key
from trainers.upstream.vector_files import read_vectors
from trainers.upstream.walk import daily_file


def test_mean_by_key_averages_the_rows_of_each_key() -> None:
    keys, means = mean_by_key(np.array([7, 3, 7]), np.array([[1.0, 0.0], [5.0, 5.0], [3.0, 2.0]], np.float32))
    assert keys.tolist() == [3, 7]
    np.testing.assert_allclose(means, [[5.0, 5.0], [2.0, 1.0]])


def test_cross_representations_are_of_the_rows_before_a_cutoff(tmp_path: Path) -> None:
    stream, known = worlds.rows(60), worlds.known_at(20, 20, 20)
    trainer, data = worlds.trainer(), worlds.data(stream, known)
    keep_cross(trainer, data, 1, tmp_path)(at(3))
    width = trainer.model.config.cross_dim
    users, vectors = read_vectors(daily_file(tmp_path, "user", at(3)), "user", width)
    of_the_day = np.arange(20, 40)
    assert users.tolist() == np.unique(stream.user_ids[of_the_day]).tolist()
    found = trainer.cross(stream.examples, of_the_day[stream.user_ids[of_the_day] == users[0]]).mean(axis=0)
    np.testing.assert_allclose(vectors[0], found / np.linalg.norm(found), atol=1e-5)
    assert known[of_the_day].min() >= round((at(3) - timedelta(days=1)).timestamp() * 1e6)


def test_cross_representations_are_what_the_heads_read() -> None:
    stream, trainer = worlds.rows(8), worlds.trainer()
    inputs = stream.examples.tensors(np.arange(8))
    model = trainer.model.eval()
    output, cross = model(inputs), model.cross(inputs)
    halves = dict(zip(worlds.TASKS, cross.chunk(2, dim=1), strict=True))
    for task, logit in model.interaction.heads(halves).items():
        np.testing.assert_allclose(logit.detach(), output.logits[task].detach(), atol=1e-6)
