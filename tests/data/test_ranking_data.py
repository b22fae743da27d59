"""Downstream rows: who is in which part, which label was known, and which vectors an arm sees."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from feature_repo.contract import EmbeddingVersion
from feature_repo.encoding import InputSpec, VectorInput
from tests.data.small_repo import UNKNOWN_PIN, UNKNOWN_USER, SmallRepo
from tests.data.tiny_log import at, tiny_spec
from trainers.data.dataset import Conversion, DatasetSpec, Task, Window
from trainers.data.examples import Examples
from trainers.data.ranking_data import (
    RankingData,
    Split,
    click_task,
    entire_space_rows,
    renamed_vectors,
    split,
    vector_input,
    with_versions,
)

CTR, CVR = EmbeddingVersion(model="ctr", version=1, dim=2), EmbeddingVersion(model="cvr", version=3, dim=2)
CONTENT = VectorInput(column="pin_attributes__content", dim=2)
OWN, OTHER = (VectorInput(column=f"pin_embedding_{name}__embedding", dim=2) for name in ("ctr_v1", "cvr_v3"))
PIN = InputSpec(side="pin", vectors=(CONTENT, OWN, OTHER))
WINDOW = Window(features_from=at(1), train_from=at(2), test_from=at(18), until=at(20))


def hourly(spec: DatasetSpec, labels: dict[str, Any]) -> RankingData:
    """An impression every hour of the training and test days, with these labels (one value, or one a row)."""
    start, end = spec.window.train_from, spec.window.until
    moments = [start + timedelta(hours=hour) for hour in range((end - start).days * 24)]
    columns = [np.broadcast_to(np.asarray(labels[task.name], np.float32), len(moments)) for task in spec.tasks]
    empty = InputSpec(side="user")
    return RankingData(
        user=empty,
        pin=empty,
        context=empty,
        examples=Examples(inputs={}, labels=np.stack(columns, axis=1)),
        user_ids=np.zeros(len(moments), np.int64),
        pin_ids=np.zeros(len(moments), np.int64),
        surfaces=np.full(len(moments), "home"),
        event_micros=np.array([round(moment.timestamp() * 1e6) for moment in moments]),
        sampling_rate=np.ones(len(moments)),
        user_impressions=np.zeros(len(moments), np.int64),
        pin_impressions=np.zeros(len(moments), np.int64),
    )


def spans(data: RankingData, parts: Split) -> list[tuple[datetime, datetime]]:
    """First and last moment of training, validation and test rows."""
    moments = [data.event_micros[rows] for rows in (parts.train, parts.validation, parts.test)]
    origin = at(1) - timedelta(seconds=at(1).timestamp())
    return [tuple(origin + timedelta(microseconds=int(edge)) for edge in (part.min(), part.max())) for part in moments]


def test_split_of_a_label_known_at_once_uses_every_training_day() -> None:
    spec = tiny_spec(window=WINDOW)
    data = hourly(spec, {"click": 1.0, "purchase": np.nan})
    assert spans(data, split(spec, data, "click")) == [
        (at(2), at(15, 23)),
        (at(16), at(17, 23)),
        (at(18), at(19, 23)),
    ]


def test_split_leaves_out_impressions_whose_attribution_window_is_open_when_the_test_begins() -> None:
    spec = tiny_spec(window=WINDOW)
    data = hourly(spec, {"click": 1.0, "purchase": 0.0})
    # Purchases count for two days: those of the 16th and 17th are not all known on the 18th.
    assert spans(data, split(spec, data, "purchase")) == [
        (at(2), at(13, 23)),
        (at(14), at(15, 23)),
        (at(18), at(19, 23)),
    ]


def test_split_waits_for_the_longest_window_of_the_domain() -> None:
    spec = tiny_spec(
        window=WINDOW,
        conversions=(
            Conversion(kind="purchase", attribution_days=2),
            Conversion(kind="refund", attribution_days=8),
        ),
        tasks=(
            Task(name="click", label="click", domain="engagement"),
            Task(name="purchase", label="purchase", domain="conversion"),
            Task(name="refund", label="refund", domain="conversion"),
        ),
    )
    data = hourly(spec, {"click": 0.0, "purchase": 0.0, "refund": 0.0})
    # A ranker of purchases learns refunds beside them.
    assert spans(data, split(spec, data, "purchase"))[1] == (at(9), at(9, 23))
    assert spans(data, split(spec, data, "click"))[1] == (at(16), at(17, 23))


def test_split_holds_only_rows_on_which_the_task_is_defined() -> None:
    spec = tiny_spec(window=WINDOW)
    purchase = np.where(np.arange(18 * 24) % 3 == 0, 1.0, np.nan)
    parts = split(spec, hourly(spec, {"click": 1.0, "purchase": purchase}), "purchase")
    rows = np.concatenate([parts.train, parts.validation, parts.test])
    assert (rows % 3 == 0).all()
    assert len(np.unique(rows)) == len(rows)


def test_entire_space_has_the_training_rows_without_a_click_as_well() -> None:
    spec = tiny_spec(window=WINDOW)
    click = (np.arange(18 * 24) % 3 == 0).astype(np.float32)
    data = hourly(spec, {"click": click, "purchase": np.where(click == 1.0, 0.0, np.nan)})
    clicked, rows = split(spec, data, "purchase").train, entire_space_rows(spec, data, "purchase", "click")
    assert (rows == np.arange(clicked[-1] + 3)).all()
    assert (rows[click[rows] == 1.0] == clicked).all()


def test_click_task_is_the_one_of_the_label_that_a_task_is_conditional_on() -> None:
    spec = tiny_spec(window=WINDOW)
    assert click_task(spec, "purchase") == "click"
    with pytest.raises(ValueError, match=r"entire_space needs a task with `given`.*\(got click given None\)"):
        click_task(spec, "click")


def test_split_is_empty_rather_than_overlapping_when_the_window_is_too_short() -> None:
    spec = tiny_spec(window=Window(features_from=at(1), train_from=at(2), test_from=at(3), until=at(4)))
    parts = split(spec, hourly(spec, {"click": 1.0, "purchase": 0.0}), "purchase")
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (0, 0, 24)


@pytest.mark.parametrize(
    ("versions", "columns"),
    [((), [CONTENT]), ((CTR,), [CONTENT, OWN]), ((CVR,), [CONTENT, OTHER]), ((CTR, CVR), [CONTENT, OWN, OTHER])],
)
def test_with_versions_keeps_attribute_vectors_and_the_named_embeddings(
    versions: tuple[EmbeddingVersion, ...], columns: list[VectorInput]
) -> None:
    assert list(with_versions(PIN, versions).vectors) == columns


def test_with_versions_takes_an_attribute_called_embedding_for_an_attribute() -> None:
    named = InputSpec(side="pin", vectors=(VectorInput(column="pin_attributes__embedding", dim=2), OWN))
    assert [item.column for item in with_versions(named, ()).vectors] == ["pin_attributes__embedding"]


def test_renamed_vectors_follow_their_columns() -> None:
    vectors = {f"pin_vector_{i}": np.full((1, 3), float(i), np.float32) for i in range(3)}
    user = {"user_vector_0": np.full((1, 3), 9.0, np.float32)}
    full = Examples(inputs={**vectors, **user, "pin_dense": np.zeros((1, 2))}, labels=np.zeros((1, 1), np.float32))
    part = renamed_vectors(PIN, with_versions(PIN, (CVR,)), full)
    assert sorted(part.inputs) == ["pin_dense", "pin_vector_0", "pin_vector_1", "user_vector_0"]
    assert [part.inputs[f"pin_vector_{i}"][0, 0] for i in range(2)] == [0.0, 2.0]
    assert part.inputs["user_vector_0"][0, 0] == 9.0
    assert part.inputs["pin_vector_1"] is full.inputs["pin_vector_2"]


def test_vector_input_names_the_input_of_a_version() -> None:
    assert vector_input(PIN, CVR) == "pin_vector_2"
    assert vector_input(with_versions(PIN, (CVR,)), CVR) == "pin_vector_1"


def test_read_labels_are_those_known_when_the_test_begins_and_final_in_the_test(small_repo: SmallRepo) -> None:
    spec, data = small_repo.spec, small_repo.data
    index = [task.name for task in spec.tasks].index("purchase")
    test_from = round(spec.window.test_from.timestamp() * 1e6)
    window_us = 86_400_000_000 * spec.conversions[0].attribution_days
    clicked = data.examples.labels[:, 0] == 1.0
    known = ~np.isnan(data.examples.labels[:, index])
    training = data.event_micros < test_from
    assert not known[~clicked].any()
    assert known[~training & clicked].all()
    assert known[training & clicked & (data.event_micros + window_us <= test_from)].all()
    still_open = training & clicked & (data.event_micros + window_us > test_from)
    assert (data.examples.labels[still_open & known, index] == 1.0).all()
    assert not known[still_open].all()


def test_read_rows_carry_present_vectors_only_of_known_entities(small_repo: SmallRepo) -> None:
    data = small_repo.data
    for side, spec, keys, unknown in (
        ("user", data.user, data.user_ids, UNKNOWN_USER),
        ("pin", data.pin, data.pin_ids, UNKNOWN_PIN),
    ):
        for version in small_repo.manifest.embeddings:
            vectors = data.examples.inputs[vector_input(spec, version)]
            assert (vectors[:, -1] == (keys != unknown)).all(), side
            norms = np.linalg.norm(vectors[:, :-1], axis=1)
            np.testing.assert_allclose(norms, (keys != unknown).astype(float), atol=1e-5)


def test_read_rows_are_in_order_and_inside_the_window(small_repo: SmallRepo) -> None:
    data, window = small_repo.data, small_repo.spec.window
    assert (np.diff(data.event_micros) >= 0).all()
    first, last = (round(moment.timestamp() * 1e6) for moment in (window.train_from, window.until))
    assert first <= data.event_micros[0]
    assert data.event_micros[-1] < last
    assert {len(values) for values in data.examples.inputs.values()} == {len(data.user_ids)}
    assert all(np.isfinite(values).all() for values in data.examples.inputs.values())


def test_read_specs_do_not_change_with_the_test_days(small_repo: SmallRepo) -> None:
    # Moments and vocabularies are fitted on training rows: refitting on those alone gives the same.
    data = small_repo.data
    training = data.event_micros < round(small_repo.spec.window.test_from.timestamp() * 1e6)
    dense = data.examples.inputs["user_dense"][training]
    values, missing = np.split(dense, 2, axis=1)
    means = values.sum(axis=0) / np.maximum((1 - missing).sum(axis=0), 1)
    np.testing.assert_allclose(means, 0.0, atol=1e-3)
    assert dataclasses.asdict(data.context.categorical[0])["vocabulary"] == ("home", "related", "search")
