"""The feature repo's manifest of a dataset and a recipe."""

from __future__ import annotations

from tests.data.tiny_log import tiny_spec
from trainers.data.dataset import Task
from trainers.data.manifest import embedding_versions, repo_manifest
from trainers.recipes import tiny

RECIPE = tiny()


def test_embedding_versions_are_one_per_domain_of_the_recipes_width() -> None:
    versions = embedding_versions(tiny_spec(), RECIPE)
    assert [version.key for version in versions] == ["ctr_v1", "cvr_v1"]
    assert {version.dim for version in versions} == {2 * 8}
    assert {version.ttl_hours for version in versions} == {72}


def test_embedding_versions_leave_out_a_domain_without_tasks() -> None:
    spec = tiny_spec(tasks=(Task(name="click", label="click", domain="engagement"),), cvr_task=None)
    assert [version.model for version in embedding_versions(spec, RECIPE)] == ["ctr"]


def test_repo_manifest_carries_what_was_declared() -> None:
    manifest = repo_manifest(tiny_spec(), RECIPE)
    assert (manifest.dataset, manifest.labels, manifest.conversions) == ("tiny", ("click",), ("purchase",))
    assert (manifest.windows_days, manifest.sequence_length) == ((1, 7), 5)
    assert [field.name for field in manifest.user_attributes] == ["age"]
    assert [(field.name, field.kind, field.dim) for field in manifest.pin_attributes] == [
        ("topics", "multi_valued", 0),
        ("content", "vector", 2),
    ]
