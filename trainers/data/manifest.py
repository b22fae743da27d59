"""The feature repo's manifest, from a dataset and a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from feature_repo.contract import EmbeddingVersion, RepoManifest
from trainers.data.dataset import DatasetSpec, Domain, Task
from trainers.recipes import RunRecipe

DOMAINS: tuple[Domain, ...] = get_args(Domain)
UPSTREAM_MODELS: dict[str, tuple[Domain, ...]] = {"ctr": ("engagement",), "cvr": ("conversion",), "unified": DOMAINS}
"""Upstream models and the domains whose tasks each is trained on."""
FIRST_VERSION = 1


def model_tasks(spec: DatasetSpec, model: str) -> tuple[Task, ...]:
    """Tasks that an upstream model is trained on, in the dataset's order."""
    return tuple(task for task in spec.tasks if task.domain in UPSTREAM_MODELS[model])


def model_columns(spec: DatasetSpec, model: str) -> list[int]:
    """Positions of the model's tasks among those of the dataset."""
    return [i for i, task in enumerate(spec.tasks) if task.domain in UPSTREAM_MODELS[model]]


def models_of(spec: DatasetSpec, recipe: RunRecipe) -> tuple[str, ...]:
    """Upstream models that a run trains; of those with the same tasks one alone, and none without any."""
    wanted = [
        model
        for model, domains in UPSTREAM_MODELS.items()
        if recipe.domains == "compared" or (len(domains) == 1) == (recipe.domains == "separate")
    ]
    by_tasks: dict[tuple[Task, ...], str] = {}
    for model in wanted:
        by_tasks.setdefault(model_tasks(spec, model), model)
    return tuple(model for tasks, model in by_tasks.items() if tasks)


def embedding_versions(spec: DatasetSpec, recipe: RunRecipe) -> tuple[EmbeddingVersion, ...]:
    """One version of every upstream model that a run trains."""
    return tuple(
        EmbeddingVersion(
            model=model,
            version=FIRST_VERSION,
            dim=recipe.upstream.embedding_dim,
            ttl_hours=recipe.upstream.ttl_hours,
        )
        for model in models_of(spec, recipe)
    )


def released_versions(versions: Iterable[EmbeddingVersion]) -> tuple[EmbeddingVersion, ...]:
    """Those of a run's versions that its release reads: of models of one domain, or the unified one without any."""
    every = tuple(versions)
    separate = tuple(version for version in every if len(UPSTREAM_MODELS[version.model]) == 1)
    return separate or every


def version_for(versions: Iterable[EmbeddingVersion], domain: Domain) -> EmbeddingVersion:
    """The version of the model that knows a domain's tasks, of several the one that knows fewest others."""
    known = [version for version in versions if domain in UPSTREAM_MODELS[version.model]]
    return min(known, key=lambda version: len(UPSTREAM_MODELS[version.model]))


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
