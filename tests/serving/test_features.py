"""`POST /v1/features` on a tiny release."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient


def features(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    response = client.post("/v1/features", json=body)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def test_features_tells_present_missing_and_outside_max_age_apart(client: TestClient) -> None:
    results = features(client, entity="user", ids=[2, 1, 999], features=["user_activity:impressions_ever"])
    assert [item["id"] for item in results] == [2, 1, 999]
    assert [item["views"]["user_activity"] for item in results] == [
        {
            "status": "outside_max_age",
            "event_timestamp": "2026-01-05T20:00:00Z",
            "values": {"impressions_ever": None},
        },
        {"status": "present", "event_timestamp": "2026-01-09T23:00:00Z", "values": {"impressions_ever": 10}},
        {"status": "missing", "event_timestamp": None, "values": {"impressions_ever": None}},
    ]


def test_features_never_age_in_a_view_without_ttl(client: TestClient) -> None:
    (result,) = features(client, entity="user", ids=[1], features=["user_attributes:segment"])
    assert result["views"]["user_attributes"]["status"] == "present"
    assert result["views"]["user_attributes"]["values"] == {"segment": "a"}


def test_features_reads_all_that_the_release_reads_unless_named(client: TestClient) -> None:
    (result,) = features(client, entity="pin", ids=[102])
    assert set(result["views"]) == {"pin_activity", "pin_attributes", "pin_embedding_ctr_v1"}
    embedding = result["views"]["pin_embedding_ctr_v1"]["values"]
    assert embedding["embedding"] == pytest.approx([0.8, 0.6])
    assert embedding["data_cutoff"].startswith("2026-01-10T00:00:00")


@pytest.mark.parametrize(
    "reference", ["user_activity:likes", "pin_attributes:price", "user_activity", "nothing:click_ever"]
)
def test_features_refuses_an_unknown_feature(client: TestClient, reference: str) -> None:
    response = client.post("/v1/features", json={"entity": "user", "ids": [1], "features": [reference]})
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["code"], error["value"]) == ("unknown_feature", reference)
    assert "user_activity" in error["remedy"]
