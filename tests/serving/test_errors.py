"""Bad requests: one JSON form, which names the field, the value and the remedy."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.errors import shown

GOOD = {"user_id": 1, "surface": "1", "k": 10}


def error(client: TestClient, status: int, **request: Any) -> dict[str, Any]:
    response = client.post("/v1/recommend", **request)
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()["error"]
    assert set(found) == {"code", "message", "field", "value", "remedy"}
    assert found["remedy"]
    return found


def test_unknown_surface_is_named_with_the_known_ones(client: TestClient) -> None:
    found = error(client, 422, json=GOOD | {"surface": "9"})
    assert (found["code"], found["field"], found["value"]) == ("unknown_surface", "surface", "9")
    assert found["remedy"] == "use one of 0, 1"


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"k": 0}, "k", "greater than or equal to 1"),
        ({"k": 201}, "k", "less than or equal to 200"),
        ({"user_id": -5}, "user_id", "greater than or equal to 0"),
        ({"user_id": 2**63}, "user_id", "less than or equal to"),
        ({"user_id": "712"}, "user_id", "must be a number"),
        ({"user_id": 7.5}, "user_id", "valid integer"),
        ({"surface": 1}, "surface", "valid string"),
        ({"candidates": []}, "candidates", "at least 1 item"),
        ({"candidates": [1, "two"]}, "candidates.1", "valid integer"),
        ({"exclude_pins": list(range(1001))}, "exclude_pins", "at most 1000 items"),
        ({"top": 5}, "top", "Extra inputs are not permitted"),
    ],
)
def test_bad_field_is_named_with_its_bounds(client: TestClient, change: dict[str, Any], field: str, says: str) -> None:
    found = error(client, 422, json=GOOD | change)
    assert (found["code"], found["field"]) == ("invalid_request", field)
    assert says in found["message"]


def test_bad_value_is_repeated(client: TestClient) -> None:
    assert error(client, 422, json=GOOD | {"k": 0})["value"] == 0


def test_absent_field_is_named(client: TestClient) -> None:
    found = error(client, 422, json={"user_id": 1})
    assert (found["field"], found["remedy"]) == ("surface", "add the field")


@pytest.mark.parametrize("body", [b"{", b"user_id=1&surface=1", b"\xff\xfe", b"[" * 100_000])
def test_malformed_json_is_refused(client: TestClient, body: bytes) -> None:
    found = error(client, 400, content=body)
    assert (found["code"], found["field"]) == ("malformed_json", None)
    assert "body" in found["message"]
    assert found["remedy"] == "send one JSON object, encoded in UTF-8"


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"7"])
def test_body_other_than_an_object_is_refused(client: TestClient, body: bytes) -> None:
    found = error(client, 422, content=body)
    assert (found["code"], found["field"]) == ("invalid_request", None)
    assert found["remedy"] == "send one JSON object, encoded in UTF-8"


@pytest.mark.parametrize("body", [b'{"user_id": NaN, "surface": "1"}', b'{"user_id": 1, "surface": "\\ud800"}'])
def test_values_that_json_cannot_carry_are_still_named(client: TestClient, body: bytes) -> None:
    assert error(client, 422, content=body)["value"] is not None


@pytest.mark.parametrize("chunked", [False, True])
def test_body_over_one_mebibyte_is_refused(client: TestClient, chunked: bool) -> None:
    body = b'{"user_id": 1, "surface": "' + b"x" * 1024 * 1024 + b'"}'
    found = error(client, 413, content=iter([body[:500_000], body[500_000:]]) if chunked else body)
    assert found["code"] == "body_too_long"


def test_unknown_route_and_method_have_the_same_form(client: TestClient) -> None:
    assert client.get("/v2/recommend").json()["error"]["code"] == "not_found"
    assert client.get("/v1/recommend").json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        (None, None),
        (True, True),
        ("a" * 300, "a" * 200 + "…"),
        ([1, 2], "[1, 2]"),
        (1.5, 1.5),
        (float("nan"), "nan"),
    ],
)
def test_shown_value_is_short_plain_json(value: Any, expected: Any) -> None:
    assert shown(value) == expected
