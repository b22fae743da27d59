"""The same ranker with and without embeddings: what each arm reads, and its scores.

Dims: N rows, S seeds, T tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from feature_repo.contract import ENTITIES, EmbeddingVersion
from feature_repo.encoding import InputSpec
from trainers.data.dataset import DatasetSpec
from trainers.data.examples import Rows
from trainers.data.model_inputs import field_config, side_config
from trainers.data.ranking_data import (
    RankingData,
    Split,
    entire_space_rows,
    renamed_vectors,
    vector_column,
    vector_input,
    with_versions,
)
from trainers.modules.joined_vectors import JoinedVectorsConfig
from trainers.modules.vector_sequence import VectorSequenceConfig
from trainers.progress import SILENT, Progress
from trainers.ranking.model import Ranker, RankerConfig
from trainers.ranking.recipes import RankingRecipe
from trainers.ranking.train import num_steps, predict, train_ranker
from trainers.report.schema import Inputs


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """What a ranker reads beside the base features."""

    inputs: Inputs
    """Name in the report."""
    versions: tuple[EmbeddingVersion, ...] = ()
    """Embedding versions."""
    entities: tuple[str, ...] = ENTITIES
    """Entities whose vectors are read."""

    def versions_of(self, entity: str) -> tuple[EmbeddingVersion, ...]:
        """Versions read for one entity."""
        return self.versions if entity in self.entities else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What an arm's rankers of every seed say, whatever kind they are."""

    arm: Arm
    validation_logits: npt.NDArray[np.float32]
    """Logits [S, N] of the judged task on the validation rows."""
    test_logits: npt.NDArray[np.float32]
    """The same on the test rows."""
    setting: str = ""
    """What was chosen on the validation rows, in words; empty where nothing was or the recipe's own did best."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmResult(Scored):
    """The same of neural rankers, with the one that a release serves."""

    user: InputSpec
    pin: InputSpec
    ranker: Ranker
    """The first seed's ranker, in evaluation mode."""


def arms(
    own: EmbeddingVersion, others: Sequence[EmbeddingVersion] = (), unified: EmbeddingVersion | None = None
) -> list[Arm]:
    """Arms of a ranker: none, its own domain's embeddings by entity, and last what a release has.

    Args:
        own: Version of the model that knows the ranker's domain.
        others: Further versions that the release reads.
        unified: Version of a model of both domains to compare with, which the release does not read.
    """
    found = [
        Arm(inputs="none"),
        Arm(inputs="user", versions=(own,), entities=("user",)),
        Arm(inputs="pin", versions=(own,), entities=("pin",)),
        Arm(inputs="both", versions=(own,)),
    ]
    if not others:
        return found
    if unified is not None:
        found += [Arm(inputs="other_domain", versions=tuple(others)), Arm(inputs="unified", versions=(unified,))]
    return [*found, Arm(inputs="both_domains", versions=(own, *others))]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankerJob:
    """One ranker to train in every arm."""

    spec: DatasetSpec
    data: RankingData
    recipe: RankingRecipe
    task: str
    """Task that the ranker is judged on."""
    tasks: tuple[str, ...]
    """All tasks it learns, the judged one first."""
    split: Split
    seeds: tuple[int, ...]
    num_labels: int
    """Bits of the action bitmask."""
    clicks: str | None = None
    """Task that the judged one is conditional on, where the ranker learns both in the entire space."""
    past: tuple[str, ...] = ()
    """Columns with the user's vectors of earlier days to read as a sequence, oldest first; last among its vectors."""
    projection_dim: int | None = None
    """Width of one projection of all embeddings together, 0 to read them as they are; none for a token each."""

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            rows = getattr(self.split, name)
            classes = np.unique(self.data.examples.labels[rows, self.columns()[0]])
            if len(classes) < 2:
                raise ValueError(
                    f"task {self.task} needs both classes in the {name} days (got labels {classes.tolist()} on "
                    f"{len(rows)} rows); move the dataset's window or leave the task out"
                )

    def train_rows(self) -> Rows:
        """Rows that a neural ranker learns from; in the entire space those without a click are among them."""
        if self.clicks is None:
            return self.split.train
        return entire_space_rows(self.spec, self.data, self.task, self.clicks)

    def columns(self) -> list[int]:
        """Label columns of the tasks."""
        names = [task.name for task in self.spec.tasks]
        return [names.index(task) for task in self.tasks]


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedResult:
    """One ranker of one arm, small enough to send between processes."""

    weights: dict[str, npt.NDArray[np.generic]]
    """Weights of the best epoch by name."""
    epoch: int
    """Passes over the training rows that they have seen."""
    validation_logits: npt.NDArray[np.float32]
    """Logits [N] of the judged task on the validation rows."""
    test_logits: npt.NDArray[np.float32]
    """The same on the test rows."""


def run_seed(job: RankerJob, arm: Arm, seed: int, progress: Progress = SILENT) -> SeedResult:
    """Train the arm's ranker with one seed and score validation and test rows."""
    user, pin = arm_specs(job, arm)
    examples = renamed_vectors(job.data.pin, pin, renamed_vectors(job.data.user, user, job.data.examples))
    train, validation, test = (
        examples.take(rows).with_labels(job.columns())
        for rows in (job.train_rows(), job.split.validation, job.split.test)
    )
    with progress.stage(f"ranker of {job.task}, seed {seed}", num_steps(job.recipe, len(train))) as stage:
        ranker = train_ranker(
            ranker_config(job, arm, user, pin),
            job.recipe,
            train=train,
            validation=validation,
            hidden_vectors=hidden_vectors(arm, user, pin, job.past),
            seed=seed,
            clicks=job.clicks,
            stepped=stage.advance,
        )
    return SeedResult(
        weights={name: value.numpy() for name, value in ranker.model.state_dict().items()},
        epoch=ranker.epoch,
        validation_logits=predict(ranker.model, validation)[:, 0],
        test_logits=predict(ranker.model, test)[:, 0],
    )


def collected(job: RankerJob, arm: Arm, seeds: Sequence[SeedResult]) -> ArmResult:
    """An arm's seeds together, with the first seed's ranker ready to use."""
    user, pin = arm_specs(job, arm)
    ranker = Ranker(ranker_config(job, arm, user, pin))
    ranker.load_state_dict({name: torch.from_numpy(value) for name, value in seeds[0].weights.items()})
    return ArmResult(
        arm=arm,
        user=user,
        pin=pin,
        ranker=ranker.eval(),
        validation_logits=np.stack([each.validation_logits for each in seeds]),
        test_logits=np.stack([each.test_logits for each in seeds]),
    )


def arm_specs(job: RankerJob, arm: Arm) -> tuple[InputSpec, InputSpec]:
    """Inputs of the user and the Pin that the arm reads."""
    return (
        with_versions(job.data.user, arm.versions_of("user")),
        with_versions(job.data.pin, arm.versions_of("pin")),
    )


def ranker_config(job: RankerJob, arm: Arm, user: InputSpec, pin: InputSpec) -> RankerConfig:
    """Sizes of the arm's ranker."""
    sizes, dim = job.recipe, job.recipe.token_dim
    pairs = [version for version in arm.versions if arm.entities == ENTITIES]
    embeddings = [vector_column(entity, version) for version in arm.versions for entity in arm.entities]
    scaled = embeddings if sizes.unit_variance else []
    past, joined = past_inputs(user, job.past), joined_inputs(job, arm, user, pin)
    apart = {*job.past, *(embeddings if joined else ())}
    own_user, own_pin = _without_last(user, apart), _without_last(pin, apart)
    return RankerConfig(
        user=side_config(own_user, field_dim=dim, num_labels=job.num_labels, sequence_layers=1, unit_vectors=scaled),
        pin=side_config(own_pin, field_dim=dim, num_labels=job.num_labels, unit_vectors=scaled),
        context=field_config(job.data.context, field_dim=dim),
        tasks=job.tasks,
        vector_pairs=tuple((vector_input(user, version), vector_input(pin, version)) for version in pairs),
        past_vectors=tuple(past),
        past=_past_sizes(sizes, list(past.values())),
        joined_vectors=tuple(joined),
        joined=_joined_sizes(sizes, tuple(joined.values()), job.projection_dim),
        sequence_buckets=sizes.sequence_buckets,
        backbone=sizes.backbone,
        cross_layers=sizes.cross_layers,
        cross_rank=sizes.cross_rank,
        hidden_dim=sizes.hidden_dim,
        num_experts=sizes.num_experts,
        dropout=sizes.dropout,
    )


def _without_last(side: InputSpec, apart: Collection[str]) -> InputSpec:
    """The inputs without vectors that are read in another way; they come last, so that the others keep their names."""
    kept = tuple(item for item in side.vectors if item.column not in apart)
    assert side.vectors[: len(kept)] == kept
    return replace(side, vectors=kept)


def joined_inputs(job: RankerJob, arm: Arm, user: InputSpec, pin: InputSpec) -> dict[str, int]:
    """Names and widths of the embeddings that become tokens together; empty where each is a token."""
    if job.projection_dim is None:
        return {}
    sides = {"user": user, "pin": pin}
    return {vector_input(sides[entity], version): version.dim for version in arm.versions for entity in arm.entities}


def _joined_sizes(
    sizes: RankingRecipe, widths: tuple[int, ...], projection_dim: int | None
) -> JoinedVectorsConfig | None:
    if not widths or projection_dim is None:
        return None
    scales = tuple(width**0.5 for width in widths) if sizes.unit_variance else ()
    return JoinedVectorsConfig(dims=widths, token_dim=sizes.token_dim, projection_dim=projection_dim, scales=scales)


def past_inputs(user: InputSpec, past: Sequence[str]) -> dict[str, int]:
    """Names and widths of the inputs that hold these columns of the user, in their order."""
    widths = {item.column: (f"{user.side}_vector_{i}", item.dim) for i, item in enumerate(user.vectors)}
    return dict(widths[column] for column in past)


def _past_sizes(sizes: RankingRecipe, widths: list[int]) -> VectorSequenceConfig | None:
    if not widths:
        return None
    scale = widths[0] ** 0.5 if sizes.unit_variance else 1.0
    return VectorSequenceConfig(length=len(widths), vector_dim=widths[0], token_dim=sizes.token_dim, scale=scale)


def hidden_vectors(arm: Arm, user: InputSpec, pin: InputSpec, past: Sequence[str] = ()) -> tuple[tuple[str, ...], ...]:
    """Groups of inputs hidden together in training: all vectors of an entity, the user's earlier ones with them."""
    groups = [tuple(vector_input(side, version) for version in arm.versions_of(side.side)) for side in (user, pin)]
    groups[0] += tuple(past_inputs(user, past))
    return tuple(group for group in groups if group)


def user_days(data: RankingData, rows: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Group of each row for gAUC: one user on one UTC day. Over several days it would rise as embeddings go stale."""
    days = data.event_micros[rows] // 86_400_000_000
    return np.unique(np.stack([data.user_ids[rows], days], axis=1), axis=0, return_inverse=True)[1].ravel()
