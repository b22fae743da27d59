"""Inputs fitted on a frame: moments, vocabularies, and which columns a side reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.contract import AttributeField, EmbeddingVersion, RepoManifest, activity_fields
from feature_repo.encoding import InputSpec, encode
from trainers.data.inputs import MAX_VOCABULARY, context_spec, side_spec

TYPES = {
    "int64": pa.int64(),
    "float": pa.float64(),
    "int64_list": pa.list_(pa.int64()),
    "string_list": pa.list_(pa.string()),
    "float_list": pa.list_(pa.float32()),
}
MANIFEST = RepoManifest(
    dataset="tiny",
    labels=("click",),
    conversions=(),
    windows_days=(1,),
    sequence_length=3,
    user_attributes=(AttributeField(name="age", kind="dense", type="float"),),
    pin_attributes=(
        AttributeField(name="brand", kind="categorical", type="string"),
        AttributeField(name="topics", kind="multi_valued", type="int64"),
        AttributeField(name="content", kind="vector", type="float", dim=2),
    ),
    histories=("watched",),
)
PLAIN = RepoManifest(
    dataset="plain",
    labels=("click",),
    conversions=(),
    windows_days=(1,),
    sequence_length=3,
    user_attributes=(),
    pin_attributes=(),
)
CTR = EmbeddingVersion(model="ctr", version=2, dim=4)


def frame(manifest: RepoManifest, entity: str, num_rows: int, **columns: Any) -> pa.Table:
    """A frame whose activity is null where nothing else is given."""
    empty = {
        f"{entity}_activity__{name}": pa.nulls(num_rows, TYPES[kind])
        for name, kind in activity_fields(manifest, entity).items()
    }
    return pa.table({**empty, **columns})


def pin_frame(brands: list[str | None], topics: list[list[int] | None], **columns: Any) -> pa.Table:
    """A Pin frame with attributes."""
    return frame(
        MANIFEST,
        "pin",
        len(brands),
        pin_attributes__brand=pa.array(brands, pa.string()),
        pin_attributes__topics=pa.array(topics, pa.list_(pa.int64())),
        pin_attributes__content=pa.nulls(len(brands), pa.list_(pa.float32())),
        **columns,
    )


def dense_of(spec: InputSpec, column: str) -> Any:
    """The dense input of a column."""
    (found,) = [item for item in spec.dense if item.column == column]
    return found


def user_spec(ages: list[float | None], **options: Any) -> InputSpec:
    """User inputs fitted on these ages."""
    watched = pa.nulls(len(ages), pa.list_(pa.int64()))
    columns = {"user_attributes__age": pa.array(ages, pa.float64()), "user_history_watched__pin_ids": watched}
    return side_spec(
        MANIFEST, "user", frame(MANIFEST, "user", len(ages), **columns), surfaces=("web", "app"), **options
    )


def test_side_spec_fits_moments_on_finite_values_alone() -> None:
    age = dense_of(user_spec([1.0, 3.0, None, float("nan"), float("inf")]), "user_attributes__age")
    assert (age.log, age.mean, age.scale) == (False, 2.0, 1.0)


def test_side_spec_takes_logarithms_of_wide_numbers_but_never_of_rates() -> None:
    counts = pa.array([0, 99], pa.int64())
    columns = {"pin_activity__impressions_1d": counts, "pin_activity__click_rate_1d": pa.array([0.0, 99.0])}
    spec = pin_side(pin_frame([None, None], [None, None]), columns)
    impressions = dense_of(spec, "pin_activity__impressions_1d")
    assert impressions.log
    assert impressions.mean == pytest.approx(np.log(100.0) / 2)
    assert not dense_of(spec, "pin_activity__click_rate_1d").log


def pin_side(table: pa.Table, columns: dict[str, pa.Array]) -> InputSpec:
    """Pin inputs fitted on a frame with some columns replaced."""
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return side_spec(MANIFEST, "pin", table)


def test_side_spec_never_divides_by_zero() -> None:
    spec = user_spec([4.0, 4.0])
    assert dense_of(spec, "user_attributes__age").scale == 1e-3
    nothing = dense_of(spec, "user_activity__hours_since_click")
    assert (nothing.log, nothing.mean, nothing.scale) == (True, 0.0, 1.0)


def test_side_spec_leaves_numbers_to_the_model_without_standardise() -> None:
    bare = side_spec(PLAIN, "pin", pa.table({}), standardise=False)
    assert {(item.mean, item.scale) for item in bare.dense} == {(0.0, 1.0)}
    assert {item.log for item in bare.dense if "_rate_" in item.column} == {False}
    assert {item.log for item in bare.dense if "_rate_" not in item.column} == {True}


def test_vocabularies_hold_repeated_values_by_falling_count() -> None:
    brands = ["b", "a", "a", "b", "b", "once", None]
    topics = [[7, 8], [8], [8, 9], [], None, [7], None]
    spec = side_spec(MANIFEST, "pin", pin_frame(brands, topics))
    assert spec.categorical[0].vocabulary == ("b", "a")
    assert spec.multi_valued[0].vocabulary == (8, 7)


def test_vocabularies_are_bounded() -> None:
    brands = [f"{i:05}" for i in range(MAX_VOCABULARY + 5)] * 2
    spec = side_spec(MANIFEST, "pin", pin_frame(brands, [None] * len(brands)))
    assert len(spec.categorical[0].vocabulary) == MAX_VOCABULARY
    assert spec.categorical[0].vocabulary[0] == "00000"


def test_user_spec_reads_sequences_and_histories_only_when_asked() -> None:
    assert [item.column for item in user_spec([1.0]).ids] == []
    downstream = user_spec([1.0], sequence_buckets=256)
    assert [(item.column, item.length) for item in downstream.ids] == [("user_activity__recent_pins", 3)]
    assert not any("history" in column for column in downstream.columns())
    upstream = user_spec([1.0], id_buckets=512, sequence_buckets=256, histories=True)
    assert [(item.column, item.buckets, item.length) for item in upstream.ids] == [
        ("user_id", 512, 0),
        ("user_activity__recent_pins", 256, 3),
        ("user_history_watched__pin_ids", 256, 3),
    ]
    assert dense_of(upstream, "user_history_watched__pin_ids").mean == 0.0


def test_sequence_lists_are_actions_then_ages_and_the_surfaces_come_last() -> None:
    spec = user_spec([1.0], sequence_buckets=256)
    assert [item.column for item in spec.lists] == ["user_activity__recent_actions", "user_activity__recent_ages_hours"]
    assert spec.list_length == 3
    assert spec.multi_valued[-1].vocabulary == ("app", "web")


def test_embedding_versions_become_vector_inputs_behind_attribute_vectors() -> None:
    spec = side_spec(MANIFEST, "pin", pin_frame([None], [None]), embeddings=(CTR,))
    assert [(item.column, item.dim) for item in spec.vectors] == [
        ("pin_attributes__content", 2),
        ("pin_embedding_ctr_v2__embedding", 4),
    ]


def test_side_without_attributes_reads_activity_alone() -> None:
    spec = side_spec(PLAIN, "user", frame(PLAIN, "user", 2))
    assert {column.split("__")[0] for column in spec.columns()} == {"user_activity"}
    assert encode(spec, frame(PLAIN, "user", 2))["user_dense"].shape == (2, 2 * len(spec.dense))


def test_context_spec_knows_its_surfaces_hours_and_weekdays() -> None:
    spec = context_spec(["web", "app"])
    assert [item.size for item in spec.categorical] == [3, 25, 8]
    assert spec.categorical[0].vocabulary == ("app", "web")
    assert context_spec([]).categorical[0].size == 1
