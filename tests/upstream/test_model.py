"""The three towers: which inputs reach which embeddings."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.modules.contract import BATCH, ModuleContract
from tests.upstream import worlds
from trainers.modules.ple import PLE
from trainers.upstream.model import UpstreamModel
from trainers.upstream.recipes import DHEN_MODULES


def inputs() -> dict[str, Tensor]:
    """Inputs of a few rows; the first user has no sequence."""
    found = worlds.rows(BATCH, seed=5).examples.tensors(torch.arange(BATCH).numpy())
    found["user_id_1"][0] = 0
    found["user_id_1"][1] = torch.tensor([4, 5, 6])
    return found


@pytest.fixture
def model() -> UpstreamModel:
    """A model with moments, in evaluation mode."""
    torch.manual_seed(0)
    model = UpstreamModel(worlds.CONFIG)
    model(inputs())
    return model.eval()


class TestUpstreamModel(ModuleContract):
    def make(self) -> UpstreamModel:
        return UpstreamModel(worlds.CONFIG)

    def inputs(self) -> tuple[Any, ...]:
        return (inputs(),)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(), (), (worlds.CONFIG.embedding_dim,), (worlds.CONFIG.embedding_dim,)]


def test_embeddings_have_unit_length(model: UpstreamModel) -> None:
    output = model(inputs())
    for vectors in (output.user, output.pin):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(BATCH))


def test_context_reaches_the_logits_and_never_the_embeddings(model: UpstreamModel) -> None:
    before = model(inputs())
    after = model(inputs() | {"context_categorical": torch.zeros(BATCH, 2, dtype=torch.int64)})
    assert torch.equal(before.user, after.user)
    assert torch.equal(before.pin, after.pin)
    assert (before.logits["click"] != after.logits["click"]).any()


@pytest.mark.parametrize("entity", ["user", "pin"])
def test_inputs_of_one_entity_never_reach_the_embedding_of_the_other(model: UpstreamModel, entity: str) -> None:
    before, other = model(inputs()), worlds.rows(BATCH, seed=6).examples.tensors(torch.arange(BATCH).numpy())
    changed = {name: values for name, values in other.items() if name.startswith(f"{entity}_")}
    after = model(inputs() | changed)
    same, different = ("pin", "user") if entity == "user" else ("user", "pin")
    assert torch.equal(getattr(before, same), getattr(after, same))
    assert not torch.equal(getattr(before, different), getattr(after, different))


def test_embedding_one_entity_needs_only_its_own_inputs(model: UpstreamModel) -> None:
    whole = model(inputs())
    for entity, embed in (("user", model.embed_users), ("pin", model.embed_pins)):
        own = {name: values for name, values in inputs().items() if name.startswith(f"{entity}_")}
        assert torch.equal(embed(own), getattr(whole, entity))


def test_id_dropout_acts_in_training_alone(model: UpstreamModel) -> None:
    assert torch.equal(model.embed_users(inputs()), model.embed_users(inputs()))
    model.train()
    model.user_tower.side.dense_norm.eval()
    drawn = [model.embed_users(inputs()) for _ in range(8)]
    assert any(not torch.equal(drawn[0], other) for other in drawn[1:])
    assert torch.equal(model.embed_pins(inputs()), model.embed_pins(inputs()))


def test_gradients_are_finite_when_every_sequence_is_empty(model: UpstreamModel) -> None:
    model.train()
    output = model(inputs() | {"user_id_1": torch.zeros(BATCH, worlds.LENGTH, dtype=torch.int64)})
    (output.user.sum() + sum(logits.sum() for logits in output.logits.values())).backward()
    gradients = [weight.grad.to_dense() for weight in model.parameters() if weight.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_pins_of_sequences_share_the_table_of_the_pin_tower(model: UpstreamModel) -> None:
    before = model.embed_users(inputs())
    with torch.no_grad():
        model.pin_tower.side.fields.ids["0"].weight[4] += 1.0
    after = model.embed_users(inputs())
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("pair", list(combinations(DHEN_MODULES, 2)))
def test_towers_learn_with_any_two_modules_in_a_layer(pair: tuple[str, str]) -> None:
    config = replace(worlds.CONFIG, tower_layers=(pair,), interaction_layers=(pair, pair), dhen_hidden_dim=6)
    output = UpstreamModel(config)(inputs())
    assert output.user.shape == (BATCH, config.embedding_dim)
    (output.user.sum() + sum(logits.square().sum() for logits in output.logits.values())).backward()


def test_tasks_can_be_mixed_by_ple(model: UpstreamModel) -> None:
    ple = UpstreamModel(replace(worlds.CONFIG, experts="ple", num_experts=2))
    assert isinstance(ple.interaction.mmoe, PLE)
    assert ple.interaction.mmoe.config.tasks == worlds.TASKS
    assert {task: logits.shape for task, logits in ple(inputs()).logits.items()} == {
        task: logits.shape for task, logits in model(inputs()).logits.items()
    }


def test_key_counts_for_nothing_until_it_was_in_enough_rows() -> None:
    fields = replace(worlds.CONFIG.pin.fields, min_id_count=2)
    model = UpstreamModel(replace(worlds.CONFIG, pin=replace(worlds.CONFIG.pin, fields=fields))).eval()
    one = {name: values[:2] for name, values in inputs().items()}
    same = {name: values[:1].repeat_interleave(2, 0) for name, values in one.items()} | {
        "pin_id_0": torch.tensor([3, 4])
    }
    for seen, equal in (([3, 4], True), ([3], False)):
        model.count_ids({"pin_id_0": torch.tensor(seen)})
        vectors = model.embed_pins(same)
        assert torch.equal(vectors[0], vectors[1]) == equal


def test_towers_take_no_rows_at_all(model: UpstreamModel) -> None:
    none = {name: values[:0] for name, values in inputs().items()}
    output = model.train()(none)
    assert output.user.shape == (0, worlds.CONFIG.embedding_dim)
    assert output.logits["click"].shape == (0,)
