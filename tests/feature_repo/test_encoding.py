"""Feature columns to model inputs: hand-worked values of every kind, and what holds for any frame."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.encoding import (
    CategoricalInput,
    DenseInput,
    IdInput,
    InputSpec,
    MultiValuedInput,
    VectorInput,
    add_context,
    blank,
    context_table,
    encode,
    hash_ids,
)

LISTS = {"pins": pa.list_(pa.int64()), "ages": pa.list_(pa.float64()), "topics": pa.list_(pa.string())}
TYPES = {
    "price": pa.float64(),
    "color": pa.string(),
    "user_id": pa.int64(),
    "content": pa.list_(pa.float32()),
    **LISTS,
}
SPEC = InputSpec(
    side="user",
    dense=(DenseInput(column="price", log=False, mean=1.0, scale=2.0),),
    categorical=(CategoricalInput(column="color", vocabulary=("red", "blue")),),
    multi_valued=(MultiValuedInput(column="topics", vocabulary=("x", "y"), length=3),),
    ids=(IdInput(column="user_id", buckets=256), IdInput(column="pins", buckets=256, length=2)),
    lists=(DenseInput(column="ages", log=False, mean=0.0, scale=1.0),),
    list_length=2,
    vectors=(VectorInput(column="content", dim=2),),
)


def frame(**columns: list[Any]) -> pa.Table:
    """A frame of these columns with their types."""
    return pa.table({name: pa.array(values, TYPES[name]) for name, values in columns.items()})


def one(spec: InputSpec, **columns: list[Any]) -> list[Any]:
    """The only input of a spec, as a list."""
    (values,) = encode(spec, frame(**columns)).values()
    return list(values.tolist())


def dense_spec(*, log: bool, mean: float = 0.0, scale: float = 1.0, column: str = "price") -> InputSpec:
    """One dense input."""
    return InputSpec(side="pin", dense=(DenseInput(column=column, log=log, mean=mean, scale=scale),))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5.0, [2.0, 0.0]), (1.0, [0.0, 0.0]), (None, [0.0, 1.0]), (math.nan, [0.0, 1.0]), (math.inf, [0.0, 1.0])],
)
def test_dense_is_standardised_and_flags_what_is_missing(value: float | None, expected: list[float]) -> None:
    assert one(dense_spec(log=False, mean=1.0, scale=2.0), price=[value]) == [expected]


@pytest.mark.parametrize(("value", "expected"), [(math.e - 1.0, 1.0), (1.0 - math.e, -1.0), (0.0, 0.0)])
def test_dense_takes_signed_logarithms(value: float, expected: float) -> None:
    assert one(dense_spec(log=True), price=[value]) == [pytest.approx([expected, 0.0])]


def test_dense_keeps_a_number_too_large_for_float32_finite_and_present() -> None:
    ((value, missing),) = one(dense_spec(log=False), price=[1e300])
    assert math.isfinite(value)
    assert value > 1e38
    assert missing == 0.0


def test_dense_takes_integers_above_two_to_the_53() -> None:
    table = pa.table({"price": pa.array([2**60 + 1], pa.int64())})
    assert encode(dense_spec(log=False), table)["pin_dense"].tolist() == [[float(2**60), 0.0]]


def test_dense_of_a_list_is_its_length_and_null_is_missing() -> None:
    assert one(dense_spec(log=False, column="pins"), pins=[[7, 8, 9], [], None]) == [[3.0, 0.0], [0.0, 0.0], [0.0, 1.0]]


def test_dense_puts_all_values_before_all_flags() -> None:
    both = InputSpec(
        side="pin",
        dense=tuple(DenseInput(column=name, log=False, mean=0.0, scale=1.0) for name in ("price", "user_id")),
    )
    assert one(both, price=[2.0], user_id=[None]) == [[2.0, 0.0, 0.0, 1.0]]


def test_categorical_gives_zero_to_null_and_unseen_values() -> None:
    spec = InputSpec(side="pin", categorical=SPEC.categorical)
    assert one(spec, color=["red", "blue", "green", None]) == [[1], [2], [0], [0]]
    assert spec.categorical[0].size == 3


def test_categorical_with_an_empty_vocabulary_is_always_missing() -> None:
    spec = InputSpec(side="pin", categorical=(CategoricalInput(column="color", vocabulary=()),))
    assert one(spec, color=["red", None]) == [[0], [0]]


def test_categorical_of_integers_reads_a_narrower_column() -> None:
    spec = InputSpec(side="pin", categorical=(CategoricalInput(column="n", vocabulary=(5, 7)),))
    table = pa.table({"n": pa.array([7, 5, 6, None], pa.int16())})
    assert encode(spec, table)["pin_categorical"].tolist() == [[2], [1], [0], [0]]


def test_multi_valued_keeps_the_newest_and_pads_at_the_end() -> None:
    spec = InputSpec(side="pin", multi_valued=(MultiValuedInput(column="topics", vocabulary=("x", "y"), length=2),))
    values = [["y", "x", "y"], ["x"], [], None, ["z", None]]
    assert one(spec, topics=values) == [[1, 2], [1, 0], [0, 0], [0, 0], [0, 0]]


def test_ids_are_hashed_and_null_gets_bucket_0() -> None:
    spec = InputSpec(side="user", ids=(IdInput(column="user_id", buckets=256),))
    assert one(spec, user_id=[1, None, 712]) == [hash_ids(np.array([1]), 256)[0], 0, hash_ids(np.array([712]), 256)[0]]


def test_id_lists_keep_the_newest_oldest_first() -> None:
    spec = InputSpec(side="user", ids=(IdInput(column="pins", buckets=256, length=2),))
    one_, two, three = hash_ids(np.array([1, 2, 3]), 256).tolist()
    assert one(spec, pins=[[1, 2, 3], [1], [], None]) == [[two, three], [one_, 0], [0, 0], [0, 0]]


def test_id_lists_give_bucket_0_to_a_null_inside() -> None:
    spec = InputSpec(side="user", ids=(IdInput(column="pins", buckets=256, length=3),))
    (first, third) = hash_ids(np.array([1, 3]), 256).tolist()
    assert one(spec, pins=[[1, None, 3]]) == [[first, 0, third]]


def test_number_lists_are_scaled_and_padded_like_their_ids() -> None:
    ages = DenseInput(column="ages", log=False, mean=1.0, scale=2.0)
    spec = InputSpec(side="user", lists=(ages,), list_length=2)
    values = [[9.0, 5.0, 1.0], [3.0], None, [math.nan, None], [math.inf, 1e300]]
    found = encode(spec, frame(ages=values))["user_list_0"]
    assert found[:4].tolist() == [[2.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert np.isfinite(found).all()
    assert found[4, 0] == 0.0


def test_vectors_carry_a_flag_and_nothing_when_absent_or_not_finite() -> None:
    spec = InputSpec(side="pin", vectors=SPEC.vectors)
    values = [[0.5, -0.5], None, [], [math.nan, 1.0], [1.0, math.inf], [0.0, 0.0]]
    nothing = [0.0, 0.0, 0.0]
    assert one(spec, content=values) == [[0.5, -0.5, 1.0], nothing, nothing, nothing, nothing, [0.0, 0.0, 1.0]]


def test_vectors_of_another_width_are_refused() -> None:
    spec = InputSpec(side="pin", vectors=SPEC.vectors)
    with pytest.raises(ValueError, match=r"content must hold vectors of width 2 \(got widths \[3\]\)"):
        encode(spec, frame(content=[[1.0, 2.0, 3.0], [1.0, 2.0]]))


def test_encode_names_the_absent_columns() -> None:
    with pytest.raises(KeyError, match="topics"):
        encode(SPEC, frame(price=[1.0], color=["red"]))


def test_encode_takes_columns_that_a_store_could_not_type() -> None:
    table = pa.table({name: pa.nulls(2) for name in SPEC.columns()})
    typed = pa.table({name: pa.nulls(2, kind) for name, kind in TYPES.items()})
    assert_same(encode(SPEC, table), encode(SPEC, typed))


@pytest.mark.parametrize(("key", "bucket"), [(0, 1), (1, 27), (2, 51), (-1, 10), (712, 80), (2**62, 129)])
def test_hash_ids_never_changes(key: int, bucket: int) -> None:
    # A release stores tables by bucket: another hash would silently shuffle them.
    assert hash_ids(np.array([key]), 256).tolist() == [bucket]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(2, 1 << 20))
def test_hash_ids_stay_in_range_and_off_bucket_0(keys: list[int], buckets: int) -> None:
    found = hash_ids(np.array(keys, np.int64), buckets)
    assert ((found >= 1) & (found < buckets)).all()


def test_hash_ids_spread_consecutive_keys() -> None:
    counts = np.bincount(hash_ids(np.arange(25_500), 256), minlength=256)
    assert counts[0] == 0
    assert counts[1:].max() <= 150


def test_hash_ids_need_a_bucket_for_keys() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        hash_ids(np.array([1]), 1)


def test_spec_survives_a_trip_through_json() -> None:
    with_integers = InputSpec(side="pin", categorical=(CategoricalInput(column="n", vocabulary=(5, 7)),))
    for spec in (SPEC, with_integers, InputSpec(side="context")):
        assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_fingerprint_changes_with_the_spec_alone() -> None:
    assert SPEC.fingerprint_text() == InputSpec.from_dict(SPEC.to_dict()).fingerprint_text()
    assert SPEC.fingerprint_text() != dense_spec(log=True).fingerprint_text()


def test_context_is_hour_and_weekday_in_utc() -> None:
    table = context_table(["home"], [datetime(2024, 1, 7, 23, 59, tzinfo=UTC)])
    assert table.to_pylist()[0] | {"event_timestamp": None} == {
        "surface": "home",
        "event_timestamp": None,
        "hour": 23,
        "weekday": 6,
    }


def test_context_of_a_frame_is_that_of_its_rows_times() -> None:
    moments = [datetime(2024, 1, 1, 5, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC)]
    frame_ = pa.table({"event_timestamp": pa.array(moments, pa.timestamp("us", tz="UTC"))})
    assert add_context(frame_).drop_columns("event_timestamp").to_pydict() == {"hour": [5, 0], "weekday": [0, 2]}


def test_keys_that_share_a_bucket_under_one_hash_hardly_do_under_another() -> None:
    keys = np.arange(2_000)
    first, second = hash_ids(keys, 65), hash_ids(keys, 65, 1)
    assert ((second >= 1) & (second <= 64)).all()
    pairs = first[:, None] == first[None, :]
    both = pairs & (second[:, None] == second[None, :])
    # Of the pairs that share one of 64 buckets, one in 64 shares the other as well.
    assert both[np.triu_indices(2_000, 1)].sum() / pairs[np.triu_indices(2_000, 1)].sum() == pytest.approx(
        1 / 64, rel=0.1
    )


def test_a_key_is_read_by_several_hashes_and_a_spec_from_before_them_by_the_first() -> None:
    one = InputSpec(
        side="user", ids=(IdInput(column="user_id", buckets=65), IdInput(column="user_id", buckets=65, hash=1))
    )
    inputs = encode(one, pa.table({"user_id": pa.array([7, None], pa.int64())}))
    assert one.columns() == ["user_id"]
    assert inputs["user_id_0"].tolist() == [int(hash_ids(np.array([7]), 65)[0]), 0]
    assert inputs["user_id_1"].tolist() == [int(hash_ids(np.array([7]), 65, 1)[0]), 0]
    old = one.to_dict()
    for item in old["ids"]:
        del item["hash"]
    assert [item.hash for item in InputSpec.from_dict(old).ids] == [0, 0]


def test_encode_of_an_empty_frame_keeps_shapes_and_types() -> None:
    full = encode(SPEC, frame(**{name: [None] for name in TYPES}))
    for table in (frame(**{name: [] for name in TYPES}), pa.schema(TYPES.items()).empty_table()):
        empty = encode(SPEC, table)
        assert {name: (values.shape[1:], values.dtype) for name, values in empty.items()} == {
            name: (values.shape[1:], values.dtype) for name, values in full.items()
        }
        assert all(len(values) == 0 for values in empty.values())


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Two sets of inputs are equal, types included."""
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name], err_msg=name, strict=True)


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Such a value, or null."""
    return st.none() | values


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
ROW = st.fixed_dictionaries(
    {
        "price": optional(NUMBERS),
        "color": optional(st.sampled_from(["red", "blue", "green"])),
        "user_id": optional(st.integers(-(2**63), 2**63 - 1)),
        "content": optional(st.lists(st.floats(width=32), min_size=2, max_size=2)),
        "pins": optional(st.lists(optional(st.integers(0, 50)), max_size=4)),
        "ages": optional(st.lists(optional(NUMBERS), max_size=4)),
        "topics": optional(st.lists(optional(st.sampled_from(["x", "y", "z"])), max_size=4)),
    }
)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a frame."""
    return frame(**{name: [row[name] for row in rows] for name in TYPES})


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=5))
def test_encode_of_a_row_is_that_row_of_the_whole(rows: list[dict[str, Any]]) -> None:
    whole = encode(SPEC, table_of(rows))
    assert all(np.isfinite(values).all() for values in whole.values())
    for i, row in enumerate(rows):
        assert_same(encode(SPEC, table_of([row])), {name: values[i : i + 1] for name, values in whole.items()})


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=2, max_size=6), st.data())
def test_encode_does_not_depend_on_slices_and_chunks(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    whole = encode(SPEC, table_of(rows))
    cut = data.draw(st.integers(0, len(rows)))
    table = table_of(rows)
    assert_same(encode(SPEC, table.slice(cut)), {name: values[cut:] for name, values in whole.items()})
    chunked = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert_same(encode(SPEC, chunked), whole)


def test_encode_reads_list_arrays_that_are_slices_with_nulls_over_values() -> None:
    # A null list may still have elements below it, and a slice starts at an offset.
    values = pa.array([1, 2, 3, 4, 5, 6], pa.int64())
    mask = pa.array([False, True, False])
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 4, 6], pa.int32()), values, mask=mask)
    spec = InputSpec(side="user", ids=(IdInput(column="pins", buckets=256, length=2),))
    expected = [[0, 0], hash_ids(np.array([5, 6]), 256).tolist()]
    assert encode(spec, pa.table({"pins": lists.slice(1)}))["user_id_0"].tolist() == expected


def test_blank_rows_have_every_input_and_know_nothing() -> None:
    made = blank(SPEC, 2)
    known = encode(
        SPEC,
        frame(price=[1.0], color=["red"], user_id=[7], content=[[1.0, 2.0]], pins=[[1]], ages=[[1.0]], topics=[["x"]]),
    )
    assert {name: (values.shape[1:], values.dtype) for name, values in made.items()} == {
        name: (values.shape[1:], values.dtype) for name, values in known.items()
    }
    assert made["user_dense"].tolist() == [[0.0, 1.0]] * 2
    assert all(not values.any() for name, values in made.items() if name != "user_dense")


def test_blank_rows_of_a_side_without_inputs_are_none() -> None:
    assert blank(InputSpec(side="pin"), 2) == {}
