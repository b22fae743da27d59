"""The feature repo's manifest of a dataset and a recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from tests.data.tiny_log import tiny_spec
from trainers.data.dataset import Task
from trainers.data.manifest import (
    DOMAINS,
    UPSTREAM_MODELS,
    embedding_versions,
    model_columns,
    model_tasks,
    released_versions,
    repo_manifest,
    version_for,
)
from trainers.recipes import tiny

RECIPE = tiny()
Domains = Literal["separate", "unified", "compared"]


def test_embedding_versions_are_one_per_domain_of_the_recipes_width() -> None:
    versions = embedding_versions(tiny_spec(), RECIPE)
    assert [version.key for version in versions] == ["ctr_v1", "cvr_v1"]
    assert {version.dim for version in versions} == {2 * 8}
    assert {version.ttl_hours for version in versions} == {72}


def test_embedding_versions_leave_out_a_domain_without_tasks() -> None:
    spec = tiny_spec(tasks=(Task(name="click", label="click", domain="engagement"),), cvr_task=None)
    assert [version.model for version in embedding_versions(spec, RECIPE)] == ["ctr"]


@pytest.mark.parametrize(
    ("domains", "models", "released"),
    [
        ("separate", ["ctr", "cvr"], ["ctr", "cvr"]),
        ("unified", ["unified"], ["unified"]),
        ("compared", ["ctr", "cvr", "unified"], ["ctr", "cvr"]),
    ],
)
def test_recipe_says_which_models_are_trained_and_which_of_them_are_released(
    domains: Domains, models: list[str], released: list[str]
) -> None:
    versions = embedding_versions(tiny_spec(), replace(RECIPE, domains=domains))
    assert [version.key for version in versions] == [f"{model}_v1" for model in models]
    assert [version.model for version in released_versions(versions)] == released


@pytest.mark.parametrize(("domains", "model"), [("separate", "ctr"), ("unified", "unified"), ("compared", "ctr")])
def test_models_with_the_same_tasks_are_trained_once(domains: Domains, model: str) -> None:
    spec = tiny_spec(tasks=(Task(name="click", label="click", domain="engagement"),), cvr_task=None)
    assert [each.model for each in embedding_versions(spec, replace(RECIPE, domains=domains))] == [model]


def test_models_know_the_tasks_of_their_domains() -> None:
    spec = tiny_spec()
    names = {model: [task.name for task in model_tasks(spec, model)] for model in UPSTREAM_MODELS}
    assert names == {"ctr": ["click"], "cvr": ["purchase"], "unified": ["click", "purchase"]}
    assert {model: model_columns(spec, model) for model in UPSTREAM_MODELS} == {
        "ctr": [0],
        "cvr": [1],
        "unified": [0, 1],
    }


def test_version_for_a_domain_is_that_of_the_model_which_knows_it_alone() -> None:
    versions = embedding_versions(tiny_spec(), replace(RECIPE, domains="compared"))
    assert [version_for(versions, domain).model for domain in DOMAINS] == ["ctr", "cvr"]
    assert [version_for(versions[2:], domain).model for domain in DOMAINS] == ["unified", "unified"]


def test_repo_manifest_carries_what_was_declared() -> None:
    manifest = repo_manifest(tiny_spec(), RECIPE)
    assert (manifest.dataset, manifest.labels, manifest.conversions) == ("tiny", ("click",), ("purchase",))
    assert (manifest.windows_days, manifest.sequence_length) == ((1, 7), 5)
    assert [field.name for field in manifest.user_attributes] == ["age"]
    assert [(field.name, field.kind, field.dim) for field in manifest.pin_attributes] == [
        ("topics", "multi_valued", 0),
        ("content", "vector", 2),
    ]
