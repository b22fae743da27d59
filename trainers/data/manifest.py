"""The feature repo's manifest, from a dataset and a recipe."""

from __future__ import annotations

from feature_repo.contract import EmbeddingVersion, RepoManifest
from trainers.data.dataset import DatasetSpec, Domain
from trainers.recipes import RunRecipe

UPSTREAM_MODELS: dict[str, Domain] = {"ctr": "engagement", "cvr": "conversion"}
"""Upstream models and the domain that each is trained on."""
FIRST_VERSION = 1


def embedding_versions(spec: DatasetSpec, recipe: RunRecipe) -> tuple[EmbeddingVersion, ...]:
    """One version per domain that has tasks."""
    return tuple(
        EmbeddingVersion(
            model=model,
            version=FIRST_VERSION,
            dim=recipe.upstream.embedding_dim,
            ttl_hours=recipe.upstream.ttl_hours,
        )
        for model, domain in UPSTREAM_MODELS.items()
        if spec.domain_tasks(domain)
    )


def repo_manifest(spec: DatasetSpec, recipe: RunRecipe) -> RepoManifest:
    """Everything from which the run's feature views and services follow."""
    return RepoManifest(
        dataset=spec.name,
        labels=spec.labels,
        conversions=tuple(conversion.kind for conversion in spec.conversions),
        windows_days=recipe.windows_days,
        sequence_length=recipe.sequence_length,
        user_attributes=tuple(attribute.field() for attribute in spec.user_attributes),
        pin_attributes=tuple(attribute.field() for attribute in spec.pin_attributes),
        surface_labels=tuple(label for label in spec.labels if label in {task.label for task in spec.tasks}),
        histories=spec.histories,
        embeddings=embedding_versions(spec, recipe),
        activity_ttl_hours=recipe.activity_ttl_hours,
    )
