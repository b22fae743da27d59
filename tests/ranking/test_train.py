"""Training a ranker: the best epoch is kept, vectors are hidden together, seeds repeat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from trainers.data.examples import Examples
from trainers.modules.embedding import FieldEmbeddingConfig
from trainers.modules.side import SideConfig
from trainers.ranking import train as training
from trainers.ranking.model import RankerConfig
from trainers.ranking.recipes import RankingRecipe
from trainers.ranking.train import TrainedRanker, predict, train_ranker

CONFIG = RankerConfig(
    user=SideConfig(fields=FieldEmbeddingConfig(side="user", field_dim=4, num_dense=1)),
    pin=SideConfig(fields=FieldEmbeddingConfig(side="pin", field_dim=4, num_dense=1)),
    context=FieldEmbeddingConfig(side="context", field_dim=4, categorical_sizes=(3,)),
    tasks=("click", "like"),
    hidden_dim=8,
)
RECIPE = RankingRecipe(token_dim=4, batch_size=32, max_epochs=3, lr=0.01)


def rows(count: int, seed: int) -> Examples:
    """Rows on which a click says whether the user's number is positive; a like is often undefined."""
    random = np.random.default_rng(seed)
    dense = np.concatenate([random.normal(size=(count, 1)), np.zeros((count, 1))], axis=1).astype(np.float32)
    click = (dense[:, 0] > 0).astype(np.float32)
    like = np.where(random.random(count) < 0.5, np.nan, 1.0).astype(np.float32)
    inputs = {
        "user_dense": dense,
        "pin_dense": random.normal(size=(count, 2)).astype(np.float32),
        "context_categorical": random.integers(0, 3, (count, 1)).astype(np.int32),
    }
    return Examples(inputs=inputs, labels=np.stack([click, like], axis=1))


def trained(recipe: RankingRecipe = RECIPE, seed: int = 1) -> TrainedRanker:
    """A ranker of these rows."""
    return train_ranker(CONFIG, recipe, train=rows(128, 0), validation=rows(64, 1), hidden_vectors=(), seed=seed)


def test_train_ranker_learns_and_repeats_with_its_seed() -> None:
    first, again, other = trained(), trained(), trained(seed=2)
    assert first.validation_log_loss[-1] < first.validation_log_loss[0] < 0.75
    assert first.validation_log_loss == again.validation_log_loss != other.validation_log_loss
    assert not first.model.training


@pytest.mark.parametrize(
    ("losses", "epoch"), [((0.5, 0.4, 0.6), 2), ((0.5, 0.5, 0.5), 1), ((0.3, 0.5, 0.4), 1), ((0.5, 0.4, 0.3), 3)]
)
def test_train_ranker_keeps_the_weights_of_the_epoch_it_names(
    losses: tuple[float, ...], epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []

    def judged(model: torch.nn.Module, validation: Examples) -> float:
        del validation
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return losses[len(seen) - 1]

    monkeypatch.setattr(training, "_validation_loss", judged)
    result = trained()
    assert result.epoch == epoch
    assert all(torch.equal(value, seen[epoch - 1][name]) for name, value in result.model.state_dict().items())


@pytest.mark.parametrize("part", ["training", "validation"])
def test_train_ranker_refuses_one_class(part: str) -> None:
    parts = {"training": rows(16, 0), "validation": rows(8, 1)}
    parts[part].labels[:, 0] = 0.0
    with pytest.raises(ValueError, match=rf"click needs both classes in the {part} days \(got labels \[0.0\]"):
        train_ranker(CONFIG, RECIPE, train=parts["training"], validation=parts["validation"], hidden_vectors=(), seed=1)


def test_train_ranker_stops_at_a_loss_that_is_not_finite() -> None:
    bad = rows(16, 0)
    bad.inputs["user_dense"][3] = np.nan
    with pytest.raises(FloatingPointError, match=r"ranker of click, seed 1, epoch 1, step 1: the loss must be finite"):
        train_ranker(CONFIG, RECIPE, train=bad, validation=rows(8, 1), hidden_vectors=(), seed=1)


def test_predict_gives_every_tasks_logits_in_order() -> None:
    ranker, part = trained(replace(RECIPE, max_epochs=1)), rows(10, 3)
    logits = predict(ranker.model, part)
    with torch.inference_mode():
        expected = ranker.model(part.tensors(np.arange(10)))
    assert logits.shape == (10, 2)
    np.testing.assert_allclose(logits[:, 1], expected["like"].numpy(), rtol=1e-5)


def test_learning_rate_falls_to_a_tenth() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=1.0)
    schedule = training._cosine(optimizer, replace(RECIPE, max_epochs=2, batch_size=10), num_rows=20)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(1.0)
    assert rates[2] == pytest.approx(0.55)
    assert rates[4] == pytest.approx(0.1)


def test_ranker_in_the_entire_space_learns_the_product_of_both_chances() -> None:
    # A click is a toss-up, and of clicks a half convert: only rows with a click say anything of conversions.
    random = np.random.default_rng(0)
    part = rows(400, 0)
    click = (random.random(400) < 0.5).astype(np.float32)
    buy = np.where(click == 1.0, random.random(400) < 0.5, np.nan).astype(np.float32)
    part = replace(part, labels=np.stack([buy, click], axis=1))
    config = replace(CONFIG, tasks=("buy", "click"))
    recipe = replace(RECIPE, max_epochs=6)
    found = train_ranker(config, recipe, train=part, validation=part, hidden_vectors=(), seed=1, clicks="click")
    chances = 1.0 / (1.0 + np.exp(-predict(found.model, part).mean(axis=0)))
    assert chances == pytest.approx([np.nanmean(buy), click.mean()], abs=0.1)


def test_loss_in_the_entire_space_is_that_of_the_click_and_of_both() -> None:
    logits = {"buy": torch.zeros(3), "click": torch.zeros(3), "like": torch.zeros(3)}
    labels = {
        "buy": torch.tensor([float("nan"), 1.0, 0.0]),
        "click": torch.tensor([0.0, 1.0, 1.0]),
        "like": torch.full((3,), float("nan")),
    }
    loss, parts = training._loss(logits, labels, "click")
    # A quarter for both: one such row, two others.
    both = (2 * np.log(2.0) + 2 * np.log(4.0 / 3.0)) / 3
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(
        {"click": np.log(2.0), "like": 0.0, "click and buy": both}, abs=1e-6
    )
    assert float(loss) == pytest.approx(np.log(2.0) + both)
