"""What each arm reads, and that nothing else differs between arms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.contract import EmbeddingVersion
from tests.data.small_repo import SmallRepo
from tests.evaluation.jobs import ranker_job
from trainers.evaluation.arms import (
    Arm,
    RankerJob,
    arm_specs,
    arms,
    collected,
    hidden_vectors,
    ranker_config,
    run_seed,
    user_days,
)
from trainers.ranking.train import predict

CTR, CVR, UNIFIED = (EmbeddingVersion(model=model, version=1, dim=16) for model in ("ctr", "cvr", "unified"))


@pytest.fixture(scope="module")
def job(small_repo: SmallRepo) -> RankerJob:
    """The CTR ranker."""
    return ranker_job(small_repo)


def test_arms_grow_from_none_to_both_domains() -> None:
    found = arms(CTR, [CVR])
    assert [arm.inputs for arm in found] == ["none", "user", "pin", "both", "both_domains"]
    assert [(arm.versions_of("user"), arm.versions_of("pin")) for arm in found] == [
        ((), ()),
        ((CTR,), ()),
        ((), (CTR,)),
        ((CTR,), (CTR,)),
        ((CTR, CVR), (CTR, CVR)),
    ]


def test_arms_without_another_domain_end_with_both() -> None:
    assert [arm.inputs for arm in arms(CTR)] == ["none", "user", "pin", "both"]


def test_arms_compare_the_unified_model_with_each_domain_and_end_with_what_a_release_has() -> None:
    found = arms(CTR, [CVR], UNIFIED)
    assert [(arm.inputs, arm.versions) for arm in found[3:]] == [
        ("both", (CTR,)),
        ("other_domain", (CVR,)),
        ("unified", (UNIFIED,)),
        ("both_domains", (CTR, CVR)),
    ]
    assert found[:3] == arms(CTR)[:3]
    assert {arm.entities for arm in found[3:]} == {("user", "pin")}


@pytest.mark.parametrize(
    ("inputs", "user", "pin", "pairs", "hidden"),
    [
        ("none", [], ["content"], (), ()),
        ("user", ["ctr"], ["content"], (), (("user_vector_0",),)),
        ("pin", [], ["content", "ctr"], (), (("pin_vector_1",),)),
        (
            "both",
            ["ctr"],
            ["content", "ctr"],
            (("user_vector_0", "pin_vector_1"),),
            (("user_vector_0",), ("pin_vector_1",)),
        ),
        (
            "both_domains",
            ["ctr", "cvr"],
            ["content", "ctr", "cvr"],
            (("user_vector_0", "pin_vector_1"), ("user_vector_1", "pin_vector_2")),
            (("user_vector_0", "user_vector_1"), ("pin_vector_1", "pin_vector_2")),
        ),
    ],
)
def test_arm_reads_its_vectors_pairs_those_of_one_space_and_hides_them_by_entity(
    job: RankerJob,
    inputs: str,
    user: list[str],
    pin: list[str],
    pairs: tuple[tuple[str, str], ...],
    hidden: tuple[tuple[str, ...], ...],
) -> None:
    (arm,) = [arm for arm in arms(CTR, [CVR]) if arm.inputs == inputs]
    specs = arm_specs(job, arm)
    named = [[item.column.replace("__", "_").split("_") for item in spec.vectors] for spec in specs]
    assert [next(word for word in words if word in ("content", "ctr", "cvr")) for words in named[0]] == user
    assert [next(word for word in words if word in ("content", "ctr", "cvr")) for words in named[1]] == pin
    assert ranker_config(job, arm, *specs).vector_pairs == pairs
    assert hidden_vectors(arm, *specs) == hidden


def test_arm_brings_embeddings_to_unit_variance_and_leaves_vectors_of_attributes_alone(job: RankerJob) -> None:
    (arm,) = [arm for arm in arms(CTR, [CVR]) if arm.inputs == "both"]
    config = ranker_config(job, arm, *arm_specs(job, arm))
    assert config.user.fields.vector_scales == (CTR.dim**0.5,)
    assert config.pin.fields.vector_scales == (1.0, CTR.dim**0.5)
    as_they_are = replace(job, recipe=replace(job.recipe, unit_variance=False))
    assert ranker_config(as_they_are, arm, *arm_specs(job, arm)).user.fields.vector_scales == (1.0,)


def test_every_arm_has_the_same_sizes_but_for_its_vectors(job: RankerJob) -> None:
    configs = [ranker_config(job, arm, *arm_specs(job, arm)) for arm in arms(CTR, [CVR])]
    plain = [
        replace(
            config,
            vector_pairs=(),
            user=replace(config.user, fields=replace(config.user.fields, vector_dims=(), vector_scales=())),
            pin=replace(config.pin, fields=replace(config.pin.fields, vector_dims=(), vector_scales=())),
        )
        for config in configs
    ]
    assert all(config == plain[0] for config in plain)


def test_collected_seeds_are_scored_by_the_ranker_that_is_kept(job: RankerJob) -> None:
    arm = Arm(inputs="user", versions=(CTR,), entities=("user",))
    seeds = [run_seed(job, arm, seed) for seed in job.seeds]
    result = collected(job, arm, seeds)
    assert result.validation_logits.shape == (2, len(job.split.validation))
    assert result.test_logits.shape == (2, len(job.split.test))
    assert (result.test_logits[0] != result.test_logits[1]).any()
    again = predict(result.ranker, job.data.examples.take(job.split.test))[:, 0]
    np.testing.assert_allclose(again, result.test_logits[0], rtol=1e-5, atol=1e-5)


def test_run_seed_without_embeddings_does_not_read_them(job: RankerJob) -> None:
    vectors = {
        name: np.full_like(values, 7.0)
        for name, values in job.data.examples.inputs.items()
        if name.startswith("user_vector")
    }
    poisoned = replace(job, data=replace(job.data, examples=job.data.examples.with_inputs(vectors)))
    none = Arm(inputs="none")
    assert (run_seed(job, none, 1).test_logits == run_seed(poisoned, none, 1).test_logits).all()


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_job_says_early_which_days_lack_a_class(job: RankerJob, part: str) -> None:
    rows = getattr(job.split, part)
    negative = rows[job.data.examples.labels[rows, 0] == 0.0]
    with pytest.raises(ValueError, match=rf"task click needs both classes in the {part} days \(got labels \[0.0\]"):
        replace(job, split=replace(job.split, **{part: negative}))


def test_user_days_group_rows_of_one_user_on_one_utc_day(job: RankerJob) -> None:
    hour = 3_600_000_000
    data = replace(
        job.data,
        user_ids=np.array([5, 5, 5, 6, 5]),
        event_micros=np.array([23 * hour, 24 * hour, 47 * hour, 25 * hour, 0]),
    )
    groups = user_days(data, np.array([0, 1, 2, 3, 4]))
    assert groups.tolist() == [0, 1, 1, 2, 0]


def test_ranker_learns_from_clicked_rows_or_from_the_entire_space(small_repo: SmallRepo) -> None:
    bare = ranker_job(small_repo, "purchase")
    entire = replace(bare, clicks="click", tasks=("purchase", "click"))
    assert bare.train_rows() is bare.split.train
    assert set(bare.split.train) < set(entire.train_rows())
    clicks = small_repo.data.examples.labels[entire.train_rows(), entire.columns()[1]]
    assert set(np.unique(clicks)) == {0.0, 1.0}
    assert (clicks == 1.0).sum() == len(bare.split.train)


def test_projected_vectors_are_tokens_together_and_no_longer_of_their_sides(job: RankerJob) -> None:
    arm = arms(CTR, [CVR])[-1]
    config = ranker_config(replace(job, projection_dim=32), arm, *arm_specs(job, arm))
    assert config.joined_vectors == ("user_vector_0", "pin_vector_1", "user_vector_1", "pin_vector_2")
    assert config.joined is not None
    assert (config.joined.dims, config.joined.projection_dim) == ((CTR.dim,) * 4, 32)
    assert config.joined.scales == (CTR.dim**0.5,) * 4
    assert config.user.fields.vector_dims == ()
    assert config.pin.fields.vector_dims == (job.data.pin.vectors[0].dim,)
    assert config.vector_pairs == (("user_vector_0", "pin_vector_1"), ("user_vector_1", "pin_vector_2"))
