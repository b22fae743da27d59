"""`POST /v1/rank` on a tiny release."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient


def rank(client: TestClient, pin_ids: list[int], user_id: int = 1) -> dict[str, Any]:
    response = client.post("/v1/rank", json={"user_id": user_id, "surface": "0", "pin_ids": pin_ids})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_rank_orders_by_pctr_and_keeps_request_order_in_ties(client: TestClient) -> None:
    answer = rank(client, [105, 104, 103, 102])
    assert [item["pin_id"] for item in answer["ranked"]] == [102, 105, 103, 104]
    logits = [0.952574, 0.880797, 0.880797, 0.5]
    assert [item["pctr"] for item in answer["ranked"]] == pytest.approx(logits, abs=1e-6)


def test_rank_lists_unknown_pins_as_missing(client: TestClient) -> None:
    answer = rank(client, [777, 102, 106])
    assert [item["pin_id"] for item in answer["ranked"]] == [102]
    assert answer["missing"] == [777, 106]


def test_rank_ranks_a_repeated_pin_once(client: TestClient) -> None:
    assert len(rank(client, [102, 101, 102])["ranked"]) == 2


def test_rank_scores_an_unknown_user_on_pin_features_alone(client: TestClient) -> None:
    answer = rank(client, [102], user_id=999)
    assert set(answer["user"]["status"].values()) == {"missing"}
    assert answer["ranked"][0]["pctr"] == pytest.approx(0.880797, abs=1e-6)


def test_rank_answers_the_same_to_many_threads_at_once(client: TestClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda user: rank(client, [101, 102, 103], user)["ranked"], [1, 2, 3, 999] * 8))
    assert all(answers[i] == answers[i % 4] for i in range(32))
