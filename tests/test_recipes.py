"""Recipes of a whole run."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
import torch

from trainers.modules import dhen
from trainers.recipes import RECIPES, get_recipe
from trainers.retrieval.recipes import BaselineRecipe
from trainers.torch_setup import set_up_torch
from trainers.upstream.recipes import DHEN_MODULES, UpstreamRecipe, recipe_from


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe_text_is_equal_exactly_for_equal_recipes(name: str) -> None:
    recipe = get_recipe(name)
    changed = dataclasses.replace(recipe, upstream=dataclasses.replace(recipe.upstream, temperature=0.2))
    assert recipe.fingerprint_text() == get_recipe(name).fingerprint_text()
    assert recipe.fingerprint_text() != changed.fingerprint_text()


@pytest.mark.parametrize(
    ("name", "domains", "steps", "all_of_it"),
    [
        ("default", "separate", "1c59f1cf66bed7d5", "514684bc3c87bfa1"),
        ("compared", "separate", "1c59f1cf66bed7d5", "f66d6c7527012f82"),
        ("tiny", "separate", "f9b789200338ea7b", "4fcb592229b13b2b"),
    ],
)
def test_fields_that_came_later_leave_fingerprints_of_finished_runs_as_they_are(
    name: str, domains: str, steps: str, all_of_it: str
) -> None:
    recipe = get_recipe(name)
    assert (recipe.domains, recipe.upstream.delayed_feedback) == (domains, "wait")
    parts = ("windows_days", "sequence_length", "activity_ttl_hours", "upstream", "domains")
    texts = recipe.fingerprint_text(*parts), recipe.fingerprint_text()
    assert tuple(hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts) == (steps, all_of_it)


def test_fields_that_came_later_are_in_fingerprints_once_they_are_set() -> None:
    recipe = get_recipe("default")
    unified = dataclasses.replace(recipe, domains="unified")
    late = dataclasses.replace(recipe, upstream=dataclasses.replace(recipe.upstream, delayed_feedback="fake_negatives"))
    texts = [each.fingerprint_text("upstream", "domains") for each in (recipe, unified, late)]
    assert len(set(texts)) == 3
    assert json.loads(texts[1])["domains"] == "unified"
    with pytest.raises(KeyError, match="no_field"):
        recipe.fingerprint_text("no_field")


def test_recipes_of_domains_differ_from_the_default_in_nothing_else() -> None:
    for name, domains in (("domains", "compared"), ("unified", "unified")):
        assert get_recipe(name) == dataclasses.replace(get_recipe("default"), domains=domains)


def test_recipe_of_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"one of default, compared, domains, unified, tiny \(got 'huge'\)"):
        get_recipe("huge")


def test_compared_recipe_trains_the_models_of_the_default() -> None:
    recipe, bare = get_recipe("compared"), get_recipe("default")
    assert (recipe.retrieval.baselines is None, bare.retrieval.baselines is None) == (False, True)
    assert (recipe.boosted is None, bare.boosted is None) == (False, True)
    assert len(recipe.retrieval.prior_weights) == len(BaselineRecipe().prior_weights)
    models = dataclasses.replace(recipe.retrieval, baselines=None, prior_weights=bare.retrieval.prior_weights)
    assert dataclasses.replace(recipe, boosted=None, ctr_tried=(), cvr_tried=(), retrieval=models) == bare


@pytest.mark.parametrize(("field", "value"), [("average_weight", 1.0), ("average_weight", -0.1), ("batch_size", 1)])
def test_upstream_recipe_refuses_values_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{field} must be .*got {value}"):
        dataclasses.replace(UpstreamRecipe(), **{field: value})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tower_layers": (("masknet", "gru"),)}, r"layers must each name modules of dcn, masknet, mlp, transformer"),
        ({"interaction_layers": ((),)}, r"layers must each name modules .*got \(\(\),\)"),
        ({"dhen_hidden_dim": 0}, r"dhen_hidden_dim and num_experts must be at least 1 \(got 0, 4\)"),
        ({"num_experts": 0}, r"dhen_hidden_dim and num_experts must be at least 1 \(got 64, 0\)"),
        ({"min_id_count": -1}, r"min_id_count must be at least 0 \(got -1\)"),
        ({"id_hashes": 0}, r"id_hashes must be at least 1 \(got 0\)"),
        ({"max_id_buckets": 1}, r"max_id_buckets must be at least 2 \(got 1\)"),
        ({"uniform_negatives": -1}, r"uniform_negatives must be at least 0 \(got -1\)"),
        ({"task_weights": (("click", 0.0),)}, r"task_weights must be positive.*\('click', 0.0\)"),
        ({"task_weights": (("click", 1.0), ("click", 2.0))}, r"one a task at most"),
        (
            {"task_weights": (("click", 2.0),), "task_weighting": "uncertainty"},
            r"task_weights must be empty with task_weighting 'uncertainty'",
        ),
    ],
)
def test_upstream_recipe_refuses_options_that_make_no_sense(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(UpstreamRecipe(), **changes)  # type: ignore[arg-type]


def test_upstream_recipe_names_the_modules_that_dhen_has() -> None:
    assert tuple(sorted(dhen.MODULES)) == DHEN_MODULES


def test_upstream_recipe_comes_back_from_json() -> None:
    recipe = UpstreamRecipe(
        task_weights=(("click", 2.0),), tower_layers=(("dcn", "mlp"),), delayed_feedback="fake_negatives"
    )
    assert recipe_from(json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


def test_upstream_recipe_states_the_memory_of_its_id_tables() -> None:
    # Users and Pins, two tables each of 1,024 rows, 32 wide, three numbers of four bytes for every weight.
    assert UpstreamRecipe(id_hashes=2, max_id_buckets=1024).id_tables_mb == 2 * 2 * 1024 * 32 * 12 / 2**20


def test_upstream_recipe_gives_the_width_of_embeddings() -> None:
    assert UpstreamRecipe(token_dim=8, output_tokens=3).embedding_dim == 24


def test_set_up_torch_bounds_threads_and_drops_denormals() -> None:
    before = torch.get_num_threads()
    try:
        set_up_torch(1)
        assert torch.get_num_threads() == 1
        assert (torch.tensor([1e-40]) * 1.0).item() == 0.0
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
