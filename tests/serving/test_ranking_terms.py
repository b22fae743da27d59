"""What a ranking may be asked beyond its Pins, over HTTP on the tiny release (pctr logits are in `tiny_run`)."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.serving.test_recommend import pins, recommend

TITLE = "pin_attributes:title"


def test_recommend_leaves_out_what_a_filter_takes_out(client: TestClient) -> None:
    answer = recommend(client, filters=[{"feature": TITLE, "none_of": ["Pin 102", "Pin 103"]}])
    assert pins(answer) == [105, 101, 104]
    assert (answer["filtered"], answer["k_available"]) == (2, 3)


def test_rank_filters_too(client: TestClient) -> None:
    body = {"user_id": 1, "surface": "0", "pin_ids": [101, 102, 777]}
    answer = client.post("/v1/rank", json=body | {"filters": [{"feature": TITLE, "any_of": ["Pin 101"]}]}).json()
    assert (pins(answer), answer["filtered"], answer["missing"]) == ([101], 1, [777])


def test_bids_order_by_expected_value(client: TestClient) -> None:
    """Pin 102 has pctr sigmoid(3) and Pin 104 sigmoid(0): 0.95 and 3 × 0.5."""
    bids = {"pins": [{"pin_id": 104, "bid": 3.0}], "default": 1.0}
    answer = recommend(client, candidates=[102, 104], bids=bids)
    assert pins(answer) == [104, 102]
    assert [item["score"] for item in answer["ranked"]] == pytest.approx([1.5, 0.952574], abs=1e-6)
    assert [item["expected_value"] for item in answer["ranked"]] == [item["score"] for item in answer["ranked"]]
    assert answer["ranked"][0]["pctr"] == pytest.approx(0.5)


def test_bids_per_conversion_take_the_probability_of_both(client: TestClient) -> None:
    (item,) = recommend(client, candidates=[102], bids={"per": "conversion", "default": 10.0})["ranked"]
    assert item["expected_value"] == pytest.approx(10 * 0.952574 * 0.858149, abs=1e-4)


def test_without_bids_there_is_no_expected_value(client: TestClient) -> None:
    assert recommend(client)["ranked"][0]["expected_value"] is None


def test_diversify_gives_every_category_its_turn(client: TestClient) -> None:
    """All five Pins have titles of their own, so that a cap changes nothing; activity tells 4 apart from 1."""
    assert pins(recommend(client, diversify={"feature": TITLE, "at_most": 1})) == [102, 105, 103, 101, 104]
    capped = recommend(client, diversify={"feature": "pin_activity:impressions_ever", "at_most": 1})
    # Pins 101 to 103 share a count; 104 and 105 have none that may be used.
    assert pins(capped) == [102, 105, 104, 103, 101]


def test_context_moment_is_that_of_the_impression(client: TestClient) -> None:
    """The tiny ranker reads no hour, so the scores stay; the moment against which ages count is another thing."""
    answer = recommend(client, context={"moment": "2026-01-12T18:30:00+02:00"})
    assert answer == recommend(client)


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"filters": [{"feature": TITLE}]}, "invalid_request", "filters.0"),
        ({"filters": [{"feature": "pin_attributes:price", "any_of": [1]}]}, "unknown_feature", "filters.0.feature"),
        ({"filters": [{"feature": "nothing", "any_of": [1]}]}, "unknown_feature", "filters.0.feature"),
        ({"diversify": {"feature": "user_attributes:segment", "at_most": 1}}, "unknown_feature", "diversify.feature"),
        ({"diversify": {"feature": TITLE, "at_most": 0}}, "invalid_request", "diversify.at_most"),
        ({"bids": {"default": -1.0}}, "invalid_request", "bids.default"),
        ({"bids": {"pins": [{"pin_id": "abc", "bid": 1.0}]}}, "invalid_request", "bids.pins.0.pin_id"),
        ({"context": {"moment": "2026-01-12T18:30:00"}}, "invalid_request", "context.moment"),
        ({"user_id": "someone"}, "invalid_request", "user_id"),
        ({"exclude_pins": ["one"]}, "invalid_request", "exclude_pins.0"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_field(
    client: TestClient, change: dict[str, Any], code: str, field: str
) -> None:
    response = client.post("/v1/recommend", json={"user_id": 1, "surface": "0"} | change)
    assert response.status_code == 422
    found = response.json()["error"]
    assert (found["code"], found["field"]) == (code, field)
    assert found["remedy"]
