"""Sizes of a model's sides, read off their inputs."""

from __future__ import annotations

from feature_repo.encoding import CategoricalInput, DenseInput, IdInput, InputSpec, MultiValuedInput, VectorInput
from trainers.data.model_inputs import field_config, side_config
from trainers.modules.side import SequenceInputs


def dense(count: int) -> tuple[DenseInput, ...]:
    """So many dense inputs."""
    return tuple(DenseInput(column=f"d{i}", log=False, mean=0.0, scale=1.0) for i in range(count))


USER = InputSpec(
    side="user",
    dense=dense(17),
    categorical=(CategoricalInput(column="c", vocabulary=("x", "y")),),
    multi_valued=(
        MultiValuedInput(column="topics", vocabulary=(1, 2, 3), length=8),
        MultiValuedInput(column="user_activity__recent_surfaces", vocabulary=("web",), length=5),
    ),
    ids=(
        IdInput(column="user_id", buckets=512),
        IdInput(column="user_activity__recent_pins", buckets=256, length=5),
        IdInput(column="user_history_watched__pin_ids", buckets=256, length=5),
    ),
    lists=dense(2),
    list_length=5,
    vectors=(VectorInput(column="v", dim=4),),
)


def test_field_config_leaves_id_lists_and_their_surfaces_to_the_sequences() -> None:
    config = field_config(USER, field_dim=8, id_dropout=0.5)
    assert (config.num_dense, config.dense_tokens) == (17, 2)
    assert (config.categorical_sizes, config.multi_sizes) == ((3,), (4, 0))
    assert (config.id_buckets, config.vector_dims, config.id_dropout) == ((512, 0, 0), (4,), 0.5)


def test_field_config_without_sequences_keeps_every_multi_valued_input() -> None:
    spec = InputSpec(side="pin", multi_valued=(MultiValuedInput(column="topics", vocabulary=(1,), length=8),))
    assert field_config(spec, field_dim=8).multi_sizes == (2,)


def test_field_config_brings_unit_vectors_alone_to_unit_variance() -> None:
    assert field_config(USER, field_dim=8, unit_vectors=("v",)).vector_scales == (2.0,)
    assert field_config(USER, field_dim=8, unit_vectors=("other",)).vector_scales == (1.0,)
    assert side_config(USER, field_dim=8, num_labels=2, unit_vectors=("v",)).fields.vector_scales == (2.0,)


def test_dense_tokens_are_between_one_and_four() -> None:
    sizes = [field_config(InputSpec(side="pin", dense=dense(n)), field_dim=8).dense_tokens for n in (1, 8, 24, 200)]
    assert sizes == [1, 1, 3, 4]


def test_side_config_gives_details_to_the_recent_pins_alone() -> None:
    config = side_config(USER, field_dim=8, num_labels=2, normalise_dense=True)
    assert config.sequences == (
        SequenceInputs(
            pins="user_id_1",
            length=5,
            actions="user_list_0",
            num_actions=2,
            surfaces="user_multi_1",
            num_surfaces=2,
            ages="user_list_1",
        ),
        SequenceInputs(pins="user_id_2", length=5),
    )
    assert config.normalise_dense
    assert config.num_tokens == (2 + 1 + 1 + 1 + 1) + 2
