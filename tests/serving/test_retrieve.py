"""`POST /v1/retrieve` and `POST /v1/similar` on the tiny release, whose vectors are in `tiny_run.VECTORS`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings


def asked(client: TestClient, route: str, **body: Any) -> dict[str, Any]:
    response = client.post(f"/v1/{route}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_retrieve_answers_the_nearest_pins_with_their_inner_products(client: TestClient) -> None:
    """User 1 has the vector (1, 0); Pin 106 is in the index alone."""
    answer = asked(client, "retrieve", user_id=1, k=3)
    assert [each["pin_id"] for each in answer["pins"]] == [101, 102, 106]
    assert [each["score"] for each in answer["pins"]] == pytest.approx([1.0, 0.8, 0.5])
    assert (answer["source"], answer["cold_start"], answer["degraded"]) == ("retrieval", False, None)
    assert (answer["release"], answer["embeddings"]) == ("tiny-1", ["ctr_v1"])


def test_retrieve_leaves_out_excluded_pins(client: TestClient) -> None:
    answer = asked(client, "retrieve", user_id=1, k=2, exclude_pins=[101, 999])
    assert [each["pin_id"] for each in answer["pins"]] == [102, 106]


@pytest.mark.parametrize(("surface", "expected"), [("1", [104, 102, 103]), (None, [103, 102])])
def test_retrieve_answers_popular_pins_to_an_unknown_user(
    client: TestClient, surface: str | None, expected: list[int]
) -> None:
    answer = asked(client, "retrieve", user_id=999, surface=surface)
    assert [each["pin_id"] for each in answer["pins"]] == expected
    assert (answer["source"], answer["cold_start"]) == ("popular", True)
    assert {each["score"] for each in answer["pins"]} == {None}


def test_similar_answers_the_pins_nearest_to_a_pin(client: TestClient) -> None:
    answer = asked(client, "similar", pin_id=101, k=3)
    assert [each["pin_id"] for each in answer["pins"]] == [102, 106, 105]
    assert [each["title"] for each in answer["pins"]] == ["Pin 102", None, "Pin 105"]
    assert [each["similarity"] for each in answer["pins"]] == pytest.approx([0.8, 0.5, 0.1])
    assert answer["degraded"] is None


def test_similar_says_which_pin_has_no_vector(client: TestClient) -> None:
    response = client.post("/v1/similar", json={"pin_id": 777})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_pin"
    assert "777" in response.json()["error"]["message"]


def test_index_is_read_whole_where_no_copy_can_be_made(settings: Settings, tmp_path: Path) -> None:
    """A file stands where the folder of the copies should be."""
    (tmp_path / "cache").write_text("")
    with TestClient(create_app(settings.model_copy(update={"cache_dir": tmp_path / "cache"}))) as client:
        assert [each["pin_id"] for each in asked(client, "retrieve", user_id=1, k=2)["pins"]] == [101, 102]
