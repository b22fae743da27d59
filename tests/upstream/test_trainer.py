"""One upstream trainer: odd batches, non-finite losses, and what a checkpoint keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.upstream import worlds
from trainers.progress import SilentProgress
from trainers.upstream.trainer import UpstreamExamples, UpstreamTrainer


def fit(trainer: UpstreamTrainer, data: UpstreamExamples, rows: np.ndarray, seed: int = 0) -> float:
    """Mean loss of one pass."""
    with SilentProgress().stage("fit") as stage:
        return trainer.fit(data, rows, lr=1e-2, rng=np.random.default_rng(seed), stage=stage)


def state(trainer: UpstreamTrainer) -> dict[str, torch.Tensor]:
    """Weights and running moments."""
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def unchanged(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    """Whether two states are equal."""
    return all(torch.equal(value, after[name]) for name, value in before.items())


def test_fit_learns_from_the_rows() -> None:
    trainer, data = worlds.trainer(), worlds.rows(64)
    data.examples.labels[:, 0] = data.examples.inputs["context_categorical"][:, 0] > 1
    losses = [fit(trainer, data, np.arange(64), seed) for seed in range(25)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_fit_skips_a_batch_of_a_single_row() -> None:
    trainer, data = worlds.trainer(), worlds.rows(20)
    before = state(trainer)
    assert np.isnan(fit(trainer, data, np.array([3])))
    assert np.isnan(fit(trainer, data, np.array([], np.int64)))
    assert unchanged(before, state(trainer))
    assert trainer.sketch.total == 0.0


def test_fit_takes_a_batch_without_positives_and_one_without_negatives() -> None:
    for label in (0.0, 1.0):
        trainer, data = worlds.trainer(), worlds.rows(10)
        data.examples.labels[:] = label
        assert np.isfinite(fit(trainer, data, np.arange(10)))
        assert all(torch.isfinite(value).all() for value in state(trainer).values())


def test_fit_stops_at_a_loss_that_is_not_finite() -> None:
    trainer, data = worlds.trainer(), worlds.rows(10)
    data.examples.inputs["pin_vector_0"][4] = np.inf
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    with pytest.raises(
        FloatingPointError, match=r"step 1: the loss must be finite \(got nan in click, like, contrastive"
    ):
        fit(trainer, data, np.arange(10))
    assert unchanged(before, dict(trainer.model.named_parameters()))


def test_fit_counts_every_row_in_the_sketch() -> None:
    trainer, data = worlds.trainer(), worlds.rows(40)
    fit(trainer, data, np.arange(40))
    counts = np.bincount(data.pin_ids, minlength=worlds.NUM_PINS)
    np.testing.assert_allclose(trainer.sketch.count(np.arange(worlds.NUM_PINS)), counts, rtol=1e-3)


def test_checkpoint_of_a_trainer_continues_exactly(tmp_path: Path) -> None:
    data = worlds.rows(60)
    whole = worlds.trainer()
    fit(whole, data, np.arange(30), 1)
    fit(whole, data, np.arange(30, 60), 2)

    first, second = worlds.trainer(), worlds.trainer(seed=99)
    fit(first, data, np.arange(30), 1)
    first.save(tmp_path / "c.safetensors", {"cutoff": None})
    assert second.load(tmp_path / "c.safetensors") == {"cutoff": None}
    fit(second, data, np.arange(30, 60), 2)
    assert unchanged(state(whole), state(second))
    assert second.sketch.total == whole.sketch.total
    assert (second.sketch.table == whole.sketch.table).all()


@pytest.mark.parametrize(
    ("options", "learned"),
    [
        ({"learned_temperature": True}, "contrastive.raw_temperature"),
        ({"task_weighting": "uncertainty"}, "task_weighting.log_variances.like"),
        ({"uniform_negatives": 5}, None),
        ({"precision": "bfloat16"}, None),
        ({"task_weights": (("like", 3.0),)}, None),
    ],
)
def test_trainer_with_an_option_learns_otherwise_and_resumes_exactly(
    tmp_path: Path, options: dict[str, object], learned: str | None
) -> None:
    data, whole, plain = worlds.rows(60), worlds.trainer(**options), worlds.trainer()
    fit(plain, data, np.arange(30), 1)
    fit(whole, data, np.arange(30), 1)
    whole.save(tmp_path / "c.safetensors", {})
    assert not unchanged(state(plain), state(whole))
    if learned is not None:
        assert not torch.equal(state(whole)[learned], state(worlds.trainer(**options))[learned])
    resumed = worlds.trainer(seed=99, **options)
    resumed.load(tmp_path / "c.safetensors")
    for each in (whole, resumed):
        fit(each, data, np.arange(30, 60), 2)
    assert unchanged(state(whole), state(resumed))


def test_towers_in_bfloat16_give_float32_near_their_own() -> None:
    coarse, fine = worlds.trainer(precision="bfloat16"), worlds.trainer()
    inputs = worlds.rows(8).examples.tensors(np.arange(8))
    outputs = []
    for each in (coarse, fine):
        torch.manual_seed(1)
        outputs.append(each._forward(inputs, 8))
    for ours, theirs in ((outputs[0].user, outputs[1].user), (outputs[0].logits["like"], outputs[1].logits["like"])):
        assert ours.dtype == torch.float32
        assert not torch.equal(ours, theirs)
        torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)
    torch.testing.assert_close(outputs[0].user.norm(dim=1), torch.ones(8))
    rows = worlds.rows(8).examples
    assert (coarse.score(rows, np.arange(8)) == fine.score(rows, np.arange(8))).all()


def test_fixed_task_weights_multiply_the_losses_of_their_tasks() -> None:
    trainer = worlds.trainer(task_weights=(("like", 3.0),))
    logits = {"click": torch.zeros(2), "like": torch.zeros(2)}
    total, parts = trainer._supervised(logits, torch.tensor([[1.0, 0.0], [0.0, float("nan")]]))
    log2 = float(np.log(2.0))
    assert float(total) == pytest.approx(4 * log2)
    assert {name: float(part) for name, part in parts.items()} == pytest.approx({"click": log2, "like": log2})


def test_fit_takes_a_batch_with_one_positive_and_nobody_else() -> None:
    trainer, data = worlds.trainer(), worlds.rows(4)
    data.examples.labels[:] = 0.0
    data.examples.labels[2] = 1.0
    one_pin = replace(data, pin_ids=np.zeros(4, np.int64))
    for each in (data, one_pin):
        assert np.isfinite(fit(trainer, each, np.arange(4)))
    assert all(torch.isfinite(value).all() for value in state(trainer).values())


def test_score_and_embed_change_nothing_and_take_no_rows() -> None:
    trainer, data = worlds.trainer(), worlds.rows(12)
    before = state(trainer)
    assert trainer.score(data.examples, np.arange(12)).shape == (12, 2)
    assert trainer.score(data.examples, np.array([], np.int64)).shape == (0, 2)
    none = data.examples.take(np.array([], np.int64))
    assert trainer.embed("user", none).shape == (0, worlds.CONFIG.embedding_dim)
    assert unchanged(before, state(trainer))
