"""Backward compatibility: the loss by hand, what joint training reaches, and the map's file."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.tiny_log import at
from tests.upstream import worlds
from tests.upstream.spaces import rotation
from trainers.upstream.aggregate import Vectors
from trainers.upstream.compatibility import (
    BackwardMap,
    Compatibility,
    compatibility_loss,
    compatible,
    target_input,
)
from trainers.upstream.trainer import UpstreamExamples, UpstreamTrainer

DIM = worlds.CONFIG.embedding_dim


def targets(vectors: list[list[float]], present: list[int]) -> torch.Tensor:
    """An older version's vectors and whether each was present."""
    return torch.tensor([[*row, float(flag)] for row, flag in zip(vectors, present, strict=True)])


def with_older(data: UpstreamExamples, older: dict[str, Vectors], share: float = 1.0) -> UpstreamExamples:
    """Rows with the older vectors of their user and Pin, present on the first part of them."""
    present = (np.arange(len(data.user_ids)) < share * len(data.user_ids)).astype(np.float32)[:, None]
    inputs = {
        target_input(entity): np.concatenate([vectors * present, present], axis=1) for entity, vectors in older.items()
    }
    return replace(data, examples=data.examples.with_inputs(inputs))


def fit(trainer: UpstreamTrainer, data: UpstreamExamples, passes: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(passes):
        trainer.fit(data, np.arange(len(data.user_ids)), lr=5e-3, rng=rng, stage=_Silent())


class _Silent:
    def advance(self, num_done: int = 1) -> None:
        """Nothing to show."""


@cache
def version_before() -> UpstreamTrainer:
    """Another training, from another start."""
    trainer = worlds.trainer(seed=11)
    fit(trainer, worlds.rows(200, seed=4), passes=2)
    return trainer


def embedded(trainer: UpstreamTrainer, data: UpstreamExamples) -> dict[str, Vectors]:
    """Vectors of each row's user and Pin."""
    return {entity: trainer.embed(entity, data.examples) for entity in ("user", "pin")}


def agreement(mapped: dict[str, Vectors], older: dict[str, Vectors]) -> float:
    """Mean cosine, users and Pins weighing the same."""
    return float(np.mean([(mapped[entity] * older[entity]).sum(axis=1).mean() for entity in older]))


def test_loss_is_the_mean_distance_over_rows_that_have_an_older_vector() -> None:
    backward = BackwardMap(2, 2)
    users = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    inputs = {
        "older_user": targets([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], [1, 1, 0]),
        "older_pin": targets([[-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [1, 0, 0]),
    }
    loss = compatibility_loss(backward, {"user": users, "pin": users}, inputs)
    # Users: cosines 1 and 0. Pins: -1. Each entity weighs a half.
    assert loss.item() == pytest.approx(0.5 * (0.5 * (0.0 + 1.0)) + 0.5 * 2.0)


def test_loss_ignores_the_length_of_a_mapped_vector() -> None:
    backward = BackwardMap(2, 2)
    backward.matrix.data *= 7.0
    vectors = torch.tensor([[0.6, 0.8]])
    inputs = {"older_user": targets([[0.6, 0.8]], [1])}
    assert compatibility_loss(backward, {"user": vectors, "pin": vectors}, inputs).item() == pytest.approx(
        0.0, abs=1e-6
    )


@pytest.mark.parametrize("inputs", [{}, {"older_user": torch.zeros(2, 3), "older_pin": torch.zeros(2, 3)}])
def test_loss_is_nothing_where_no_row_has_an_older_vector(inputs: dict[str, torch.Tensor]) -> None:
    vectors = torch.rand(2, 2, requires_grad=True)
    backward = BackwardMap(2, 2)
    loss = compatibility_loss(backward, {"user": vectors, "pin": vectors}, inputs)
    assert loss.item() == 0.0
    if inputs:
        loss.backward()
        assert vectors.grad is not None
        assert torch.equal(vectors.grad, torch.zeros_like(vectors))


def test_map_starts_as_the_identity_as_far_as_widths_allow() -> None:
    vectors = torch.tensor([[1.0, 2.0, 3.0]])
    assert BackwardMap(3, 2)(vectors).tolist() == [[1.0, 2.0]]
    assert BackwardMap(3, 4)(vectors).tolist() == [[1.0, 2.0, 3.0, 0.0]]


def test_joint_training_reaches_what_a_map_fitted_afterwards_does_not() -> None:
    rows, later = worlds.rows(320), worlds.rows(200, seed=1)
    older = embedded(version_before(), rows)
    joint = UpstreamTrainer(worlds.CONFIG, worlds.RECIPE, 3, Compatibility(older_dim=DIM))
    alone = worlds.trainer()
    fit(joint, with_older(rows, older), passes=3)
    fit(alone, rows, passes=3)
    assert joint.backward is not None
    newer = embedded(alone, rows)
    afterwards = BackwardMap.fitted(*(np.concatenate([each["user"], each["pin"]]) for each in (newer, older)))
    wanted = embedded(version_before(), later)
    read = [
        agreement({entity: backward.compatible(each) for entity, each in embedded(trainer, later).items()}, wanted)
        for trainer, backward in ((joint, joint.backward), (alone, afterwards))
    ]
    assert 1.0 - read[0] < 0.8 * (1.0 - read[1])


def test_training_without_a_version_before_is_what_it_was() -> None:
    rows, plain = worlds.rows(64), worlds.trainer()
    none = UpstreamTrainer(worlds.CONFIG, worlds.RECIPE, 3, Compatibility(older_dim=DIM, weight=0.0))
    for each in (plain, none):
        fit(each, rows, passes=1)
    _, users = worlds.active("user", at(2))
    np.testing.assert_array_equal(plain.embed("user", users), none.embed("user", users))


def test_rows_without_an_older_vector_are_trained_on_too() -> None:
    rows = worlds.rows(64)
    older = embedded(version_before(), rows)
    trainer = UpstreamTrainer(worlds.CONFIG, worlds.RECIPE, 3, Compatibility(older_dim=DIM))
    fit(trainer, with_older(rows, older, share=0.25), passes=1)
    assert trainer.backward is not None
    assert not torch.equal(trainer.backward.matrix.detach(), torch.eye(DIM))


def test_checkpoint_keeps_the_map(tmp_path: Path) -> None:
    rows = worlds.rows(64)
    older = embedded(version_before(), rows)
    compatibility = Compatibility(older_dim=DIM)
    trained, restored = (UpstreamTrainer(worlds.CONFIG, worlds.RECIPE, seed, compatibility) for seed in (3, 4))
    fit(trained, with_older(rows, older), passes=1)
    trained.save(tmp_path / "checkpoint.safetensors", {"cutoff": None})
    restored.load(tmp_path / "checkpoint.safetensors")
    assert trained.backward is not None
    assert restored.backward is not None
    assert torch.equal(trained.backward.matrix, restored.backward.matrix)
    for each in (trained, restored):
        fit(each, with_older(rows, older), passes=1)
    assert torch.equal(trained.backward.matrix, restored.backward.matrix)


def test_maps_of_several_versions_are_read_one_after_the_other() -> None:
    second, third = BackwardMap(2, 2), BackwardMap(2, 2)
    second.matrix.data = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    third.matrix.data = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    vectors = np.array([[3.0, 4.0]], np.float32)
    np.testing.assert_allclose(compatible(vectors, [third, second]), [[4.0, 6.0] / np.sqrt(52.0)], rtol=1e-6)


def test_maps_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of width 4 must get vectors of that width \(got 3\); check the order"):
        compatible(np.ones((1, 2), np.float32), [BackwardMap(2, 3), BackwardMap(4, 4)])
    with pytest.raises(ValueError, match=r"at least one map must be given"):
        compatible(np.ones((1, 2), np.float32), [])


def test_map_fitted_afterwards_undoes_a_rotation() -> None:
    older = embedded(version_before(), worlds.rows(64))["user"]
    turn = rotation(DIM, 2)
    newer = (older @ turn).astype(np.float32)
    np.testing.assert_allclose(BackwardMap.fitted(newer, older).compatible(newer), older, atol=1e-5)


def test_map_keeps_what_it_is_in_a_file(tmp_path: Path) -> None:
    backward = BackwardMap(3, 2)
    backward.matrix.data = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    backward.save(tmp_path / "maps" / "backward.safetensors", {"older": "ctr_v1"})
    assert torch.equal(BackwardMap.load(tmp_path / "maps" / "backward.safetensors").matrix, backward.matrix)


def test_map_is_not_read_from_another_kind_of_file(tmp_path: Path) -> None:
    worlds.trainer().save(tmp_path / "checkpoint.safetensors", {})
    with pytest.raises(ValueError, match="must hold a backward map"):
        BackwardMap.load(tmp_path / "checkpoint.safetensors")


@pytest.mark.parametrize(("changes", "text"), [({"older_dim": 0}, "older_dim"), ({"weight": -1.0}, "weight")])
def test_settings_out_of_range_are_refused(changes: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=f"{text} must be at least"):
        Compatibility(**({"older_dim": 2} | changes))  # type: ignore[arg-type]
