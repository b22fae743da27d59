"""`POST /v1/recommend` on a tiny release, against numbers worked by hand (see conftest)."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient


def recommend(client: TestClient, **body: Any) -> dict[str, Any]:
    """A successful answer; user 1 on surface 0 unless said."""
    response = client.post("/v1/recommend", json={"user_id": 1, "surface": "0", "k": 10} | body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def pins(answer: dict[str, Any]) -> list[int]:
    return [item["pin_id"] for item in answer["ranked"]]


def test_recommend_orders_by_pctr_and_keeps_retrieval_order_in_ties(client: TestClient) -> None:
    answer = recommend(client)
    assert pins(answer) == [102, 105, 103, 101, 104]
    assert answer["source"] == "retrieval"
    assert answer["cold_start"] is False


@pytest.mark.parametrize(
    ("surface", "pctr", "pcvr"),
    [
        pytest.param("0", 0.952574, 0.858149, id="sigmoid(3), sigmoid(0.8 + 1)"),
        pytest.param("1", 0.998499, 0.942676, id="sigmoid(2 * 3 + 0.5), sigmoid(0.8 + 2)"),
    ],
)
def test_recommend_calibrates_per_surface(client: TestClient, surface: str, pctr: float, pcvr: float) -> None:
    best = recommend(client, surface=surface)["ranked"][0]
    assert best["pin_id"] == 102
    assert best["title"] == "Pin 102"
    assert best["score"] == best["pctr"]
    assert best["pctr"] == pytest.approx(pctr, abs=1e-6)
    assert best["pcvr"] == pytest.approx(pcvr, abs=1e-6)


def test_recommend_names_its_release_and_embedding_versions(client: TestClient) -> None:
    answer = recommend(client)
    assert (answer["release"], answer["embeddings"]) == ("tiny-1", ["ctr_v1"])
    assert answer["as_of"] == "2026-01-10T00:00:00Z"


def test_recommend_answers_all_there_is_when_k_exceeds_the_corpus(client: TestClient) -> None:
    answer = recommend(client, k=200)
    assert len(answer["ranked"]) == 5
    assert answer["k_available"] == 5


def test_recommend_counts_candidates_that_are_not_present(client: TestClient) -> None:
    missing = recommend(client)["missing"]
    assert missing["unknown"] == 1
    assert missing["views"] == {
        "pin_activity": {"missing": 2, "outside_max_age": 1},
        "pin_attributes": {"missing": 1},
        "pin_embedding_ctr_v1": {"missing": 1},
    }


def test_recommend_cuts_to_k_after_ranking(client: TestClient) -> None:
    answer = recommend(client, k=1)
    assert pins(answer) == [102]
    assert answer["k_available"] == 5


def test_recommend_leaves_out_excluded_pins(client: TestClient) -> None:
    assert pins(recommend(client, exclude_pins=[102, 105, 999])) == [103, 101, 104]


def test_recommend_ranks_only_the_candidates_of_the_request(client: TestClient) -> None:
    answer = recommend(client, candidates=[104, 103, 104, 777, 101], exclude_pins=[101])
    assert pins(answer) == [103, 104]
    assert answer["source"] == "request"
    assert answer["missing"]["unknown"] == 1


def test_recommend_answers_popular_pins_to_an_unknown_user(client: TestClient) -> None:
    answer = recommend(client, user_id=999, surface="1")
    assert pins(answer) == [102, 103, 104]
    assert (answer["source"], answer["cold_start"]) == ("popular", True)
    assert set(answer["user"]["status"].values()) == {"missing"}


def test_recommend_answers_popular_pins_of_all_surfaces_where_one_has_none(client: TestClient) -> None:
    assert pins(recommend(client, user_id=999, surface="0")) == [102, 103]


def test_recommend_tells_an_aged_user_from_an_unknown_one(client: TestClient) -> None:
    answer = recommend(client, user_id=2)
    assert (answer["source"], answer["cold_start"]) == ("popular", False)
    assert answer["user"]["status"] == {
        "user_activity": "outside_max_age",
        "user_attributes": "missing",
        "user_embedding_ctr_v1": "outside_max_age",
    }


def test_recommend_retrieves_for_a_user_with_one_present_view(client: TestClient) -> None:
    answer = recommend(client, user_id=3)
    assert answer["source"] == "retrieval"
    assert answer["user"]["status"]["user_attributes"] == "present"


def test_recommend_does_not_use_values_outside_max_age(client: TestClient) -> None:
    """User 3's 30 impressions are too old: the logit of Pin 102 is its price alone, sigmoid(2)."""
    answer = recommend(client, user_id=3, candidates=[102])
    assert answer["ranked"][0]["pctr"] == pytest.approx(0.880797, abs=1e-6)


def test_recommend_answers_nothing_when_all_candidates_are_excluded(client: TestClient) -> None:
    answer = recommend(client, candidates=[101], exclude_pins=[101])
    assert (answer["ranked"], answer["k_available"]) == ([], 0)


def test_recommend_answers_nothing_when_all_candidates_are_unknown(client: TestClient) -> None:
    answer = recommend(client, candidates=[777, 778])
    assert (answer["ranked"], answer["missing"]["unknown"]) == ([], 2)


def test_recommend_takes_the_content_type_of_a_plain_curl(client: TestClient) -> None:
    response = client.post(
        "/v1/recommend",
        content='{"user_id": 1, "surface": "1", "k": 10}',
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert response.status_code == 200
    assert response.json()["ranked"][0]["pin_id"] == 102
