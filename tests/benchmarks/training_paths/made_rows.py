"""An upstream model of the size of KuaiRand's, and rows for it, made up in memory.

Numbers say nothing about quality: inputs are drawn, labels are coins.
Dims: N rows, L length of a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.encoding import Array
from trainers.data.examples import Examples
from trainers.modules.embedding import FieldEmbeddingConfig
from trainers.modules.side import SequenceInputs, SideConfig
from trainers.upstream.model import UpstreamConfig
from trainers.upstream.recipes import UpstreamRecipe
from trainers.upstream.trainer import UpstreamExamples

Keys = npt.NDArray[np.int64]

TASKS = ("click", "long_view")
LENGTH, NUM_ACTIONS, NUM_SURFACES = 20, 8, 16
USER_CATEGORIES = (10, 9, 10, 8, 8, 2, 3, 3, 8, 42, 979, 16, 17, 4, 54, 380, 8, 6, 5, 3, 3, 3, 3, 3, 3)
PIN_CATEGORIES, TAGS, NUM_TAGS = (850, 114, 3, 13), 47, 8
CONTEXT_CATEGORIES = (16, 25, 8)
NUM_SEQUENCES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How many numbers and keys there are."""

    user_dense: int = 89
    pin_dense: int = 84
    user_buckets: int = 1 << 16
    pin_buckets: int = 1 << 15


def upstream_config(recipe: UpstreamRecipe, sizes: Sizes, *, sparse: bool = True) -> UpstreamConfig:
    """Sizes of the towers, wired as a run wires them.

    Args:
        sparse: Whether id tables get row-wise gradients, which an optimiser of torch's own does not take.
    """
    return UpstreamConfig(
        user=_user_side(recipe, sizes, sparse),
        pin=_pin_side(recipe, sizes, sparse),
        context=FieldEmbeddingConfig(side="context", field_dim=recipe.token_dim, categorical_sizes=CONTEXT_CATEGORIES),
        tasks=TASKS,
        output_tokens=recipe.output_tokens,
        hidden_tokens=recipe.hidden_tokens,
        tower_layers=recipe.tower_layers,
        interaction_layers=recipe.interaction_layers,
        dhen_hidden_dim=recipe.dhen_hidden_dim,
        experts=recipe.experts,
        num_experts=recipe.num_experts,
    )


def _user_side(recipe: UpstreamRecipe, sizes: Sizes, sparse: bool) -> SideConfig:
    """The last engagements with actions, surfaces and ages, and three long histories."""
    first, *others = (f"user_id_{number}" for number in range(1, NUM_SEQUENCES + 1))
    recent = SequenceInputs(
        pins=first,
        length=LENGTH,
        actions="user_list_0",
        num_actions=NUM_ACTIONS,
        surfaces="user_multi_0",
        num_surfaces=NUM_SURFACES,
        ages="user_list_1",
    )
    fields = FieldEmbeddingConfig(
        side="user",
        field_dim=recipe.token_dim,
        num_dense=sizes.user_dense,
        dense_tokens=4,
        categorical_sizes=USER_CATEGORIES,
        multi_sizes=(0,),
        id_buckets=(sizes.user_buckets, *(0 for _ in range(NUM_SEQUENCES))),
        sparse_ids=sparse,
        id_dropout=recipe.id_dropout,
    )
    histories = tuple(SequenceInputs(pins=each, length=LENGTH) for each in others)
    return SideConfig(fields=fields, sequences=(recent, *histories), normalise_dense=True)


def _pin_side(recipe: UpstreamRecipe, sizes: Sizes, sparse: bool) -> SideConfig:
    fields = FieldEmbeddingConfig(
        side="pin",
        field_dim=recipe.token_dim,
        num_dense=sizes.pin_dense,
        dense_tokens=4,
        categorical_sizes=PIN_CATEGORIES,
        multi_sizes=(TAGS,),
        id_buckets=(sizes.pin_buckets,),
        sparse_ids=sparse,
        id_dropout=recipe.pin_id_dropout,
    )
    return SideConfig(fields=fields, normalise_dense=True)


def made_rows(sizes: Sizes, num_rows: int, seed: int) -> UpstreamExamples:
    """Impressions of as many users and Pins as half of the buckets, Pins with a long tail."""
    random = np.random.default_rng(seed)
    users = random.integers(1, sizes.user_buckets // 2, num_rows)
    pins = np.minimum(random.zipf(1.2, num_rows), sizes.pin_buckets // 4)
    inputs = {
        **user_inputs(sizes, random, users),
        **pin_inputs(sizes, random, pins),
        "context_categorical": _categories(random, CONTEXT_CATEGORIES, num_rows),
    }
    labels = (random.random((num_rows, len(TASKS))) < (0.4, 0.3)).astype(np.float32)
    return UpstreamExamples(examples=Examples(inputs=inputs, labels=labels), user_ids=users, pin_ids=pins)


def made_users(sizes: Sizes, num_users: int, chunk: int, seed: int) -> Iterator[tuple[Keys, Examples]]:
    """Users to embed, so many at a time; the chunks differ in their keys alone, so that making them takes no time."""
    random = np.random.default_rng(seed)
    inputs = user_inputs(sizes, random, random.integers(1, sizes.user_buckets, min(chunk, num_users)))
    for start in range(0, num_users, chunk):
        keys = np.arange(start, min(start + chunk, num_users))
        some = {name: values[: len(keys)] for name, values in inputs.items()}
        yield keys, Examples(inputs=some, labels=np.empty((len(keys), 0), np.float32))


def user_inputs(sizes: Sizes, random: np.random.Generator, users: Keys) -> dict[str, Array]:
    """Encoded users: numbers of which a tenth is missing, and sequences of any length."""
    count = len(users)
    shown = np.arange(LENGTH) < random.integers(0, LENGTH + 1, (NUM_SEQUENCES, count))[:, :, None]
    pins = random.integers(1, sizes.pin_buckets, (NUM_SEQUENCES, count, LENGTH)) * shown
    return {
        "user_dense": _numbers(random, count, sizes.user_dense),
        "user_categorical": _categories(random, USER_CATEGORIES, count),
        "user_id_0": (users % sizes.user_buckets).astype(np.int32),
        **{f"user_id_{number + 1}": each.astype(np.int32) for number, each in enumerate(pins)},
        "user_multi_0": (random.integers(1, NUM_SURFACES, (count, LENGTH)) * shown[0]).astype(np.int32),
        "user_list_0": (random.integers(0, 1 << NUM_ACTIONS, (count, LENGTH)) * shown[0]).astype(np.float32),
        "user_list_1": random.normal(size=(count, LENGTH)).astype(np.float32),
    }


def pin_inputs(sizes: Sizes, random: np.random.Generator, pins: Keys) -> dict[str, Array]:
    """Encoded Pins."""
    count = len(pins)
    return {
        "pin_dense": _numbers(random, count, sizes.pin_dense),
        "pin_categorical": _categories(random, PIN_CATEGORIES, count),
        "pin_multi_0": random.integers(0, TAGS, (count, NUM_TAGS)).astype(np.int32),
        "pin_id_0": (pins % sizes.pin_buckets).astype(np.int32),
    }


def _numbers(random: np.random.Generator, count: int, width: int) -> Array:
    missing = (random.random((count, width)) < 0.1).astype(np.float32)
    values = random.normal(size=(count, width)).astype(np.float32) * (1 - missing)
    return np.concatenate([values, missing], axis=1)


def _categories(random: np.random.Generator, sizes: tuple[int, ...], count: int) -> Array:
    return random.integers(0, sizes, (count, len(sizes))).astype(np.int32)
