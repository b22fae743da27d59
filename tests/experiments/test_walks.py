"""Walks of experiments: real upstream models on the small repo, trained once and found again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trainers.experiments import walks
from trainers.experiments.setting import Setting
from trainers.experiments.walks import WalkRequest, Walks
from trainers.upstream.compatibility import BackwardMap
from trainers.upstream.frame import Frame
from trainers.upstream.model import EXPERT_DIM


def request_of(opened: Setting, name: str) -> WalkRequest:
    """A walk that embeds the last two cut-offs."""
    cutoffs = opened.cutoffs()
    return WalkRequest(name=name, recipe=opened.recipe.small, seed=5, until=cutoffs[-1], embed_from=cutoffs[-2])


@pytest.fixture(scope="module")
def requests(opened: Setting) -> tuple[WalkRequest, WalkRequest]:
    """A model of its own and one that is compatible with the run's version, both trained."""
    plain = request_of(opened, "plain")
    compatible = replace(plain, name="compatible", compatible_with=opened.version)
    Walks(opened).run([plain, compatible])
    return plain, compatible


def last(opened: Setting, request: WalkRequest) -> Frame:
    """Vectors of the last cut-off."""
    return list(Walks(opened).days(request))[-1][1]


def test_walks_leave_unit_vectors_of_the_cutoffs_that_were_asked_for(
    opened: Setting, requests: tuple[WalkRequest, WalkRequest]
) -> None:
    days = list(Walks(opened).days(requests[0]))
    assert [cutoff for cutoff, _ in days] == opened.cutoffs()[-2:]
    for _, frame in days:
        for keys, vectors in frame.values():
            assert (np.diff(keys) > 0).all()
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_compatible_model_learns_a_map_of_its_own_and_other_towers(
    opened: Setting, requests: tuple[WalkRequest, WalkRequest]
) -> None:
    backward = BackwardMap.load(Walks(opened).backward_map(requests[1]))
    assert backward.matrix.shape == (opened.recipe.small.embedding_dim, opened.version.dim)
    assert not np.allclose(backward.matrix.numpy(), np.eye(*backward.matrix.shape), atol=1e-3)
    plain, compatible = (last(opened, request)["user"][1] for request in requests)
    assert not np.allclose(plain, compatible)


def test_walks_that_are_done_are_not_trained_again(
    opened: Setting, requests: tuple[WalkRequest, WalkRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[object] = []
    monkeypatch.setattr(walks, "map_forked", lambda *given, **_: trained.append(given))
    Walks(opened).run(requests)
    assert trained == []


def test_a_walk_that_was_stopped_goes_on_to_the_same_vectors(
    opened: Setting, requests: tuple[WalkRequest, WalkRequest]
) -> None:
    whole = replace(requests[0], name="stopped")
    Walks(opened).run([replace(whole, until=opened.cutoffs()[-2])])
    (opened.work("walks") / "stopped" / "done").unlink()
    Walks(opened).run([whole])
    expected = last(opened, requests[0])
    for entity, (keys, vectors) in last(opened, whole).items():
        np.testing.assert_array_equal(keys, expected[entity][0])
        np.testing.assert_array_equal(vectors, expected[entity][1])


def test_a_walk_may_leave_cross_representations_of_the_rows_before_a_day(opened: Setting) -> None:
    request = replace(request_of(opened, "cross"), cross_days=2)
    Walks(opened).run([request])
    days = dict(Walks(opened).days(request))
    assert list(days) == opened.cutoffs()[-2:]
    tasks = [task for task in opened.evaluation.spec.tasks if task.domain == "engagement"]
    for keys, vectors in days[opened.cutoffs()[-1]].values():
        assert vectors.shape == (len(keys), EXPERT_DIM * len(tasks))
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
