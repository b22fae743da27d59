"""The OpenAPI document: every route, with examples that are what their models say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from serving.app import create_app
from serving.settings import Settings

READS = {"/v1/recommend", "/v1/retrieve", "/v1/rank", "/v1/similar", "/v1/features", "/v1/releases"}
WRITES = {"/v1/push"} | {f"/v1/releases/{each}" for each in ("{id}/promote", "rollback", "{id}/split", "split/end")}
WATCHED = {"/healthz", "/readyz", "/metrics"}


@pytest.fixture(scope="module")
def document(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = create_app(settings).openapi()
    return found


def routes(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((path, route) for path, methods in document["paths"].items() for route in methods.values())


def problems(document: dict[str, Any], schema: dict[str, Any], example: Any) -> list[str]:
    whole = {**schema, "components": document["components"]}
    return [str(each.message) for each in Draft202012Validator(whole).iter_errors(example)]


def test_every_route_is_there(document: dict[str, Any], client: TestClient) -> None:
    assert set(document["paths"]) == READS | WRITES | WATCHED
    assert client.get("/docs").status_code == 200


def test_every_request_has_examples_that_hold(document: dict[str, Any]) -> None:
    bodies = {name: schema for name, schema in document["components"]["schemas"].items() if name.endswith("Request")}
    assert len(bodies) == 10
    for name, schema in bodies.items():
        assert schema["examples"], name
        for example in schema["examples"]:
            assert problems(document, schema, example) == [], name


def test_every_answer_has_examples_that_hold(document: dict[str, Any]) -> None:
    for path, route in routes(document):
        content = route["responses"]["200"].get("content", {})
        if "application/json" in content:
            examples = content["application/json"].get("examples")
            assert examples, path
            for example in examples.values():
                assert problems(document, content["application/json"]["schema"], example["value"]) == [], path


def test_every_route_that_reads_features_takes_a_deadline(document: dict[str, Any]) -> None:
    for path in READS - {"/v1/releases"}:
        (header,) = document["paths"][path]["post"]["parameters"]
        assert (header["name"], header["in"]) == ("x-deadline-ms", "header")


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("recommend", {"user_id": 1, "surface": "0"}),
        ("recommend", {"user_id": 999, "surface": "0", "bids": {"per": "conversion", "default": 2.0}}),
        ("rank", {"user_id": 2, "surface": "1", "pin_ids": [101, 102, 777]}),
        ("retrieve", {"user_id": 1}),
        ("similar", {"pin_id": 101}),
        ("features", {"entity": "pin", "ids": [101, 777]}),
        ("features", {"entity": "user", "ids": [1], "features": ["user_embedding_ctr_v1:embedding"]}),
    ],
)
def test_answers_are_what_their_models_say(
    client: TestClient, document: dict[str, Any], route: str, body: dict[str, Any]
) -> None:
    response = client.post(f"/v1/{route}", json=body)
    schema = document["paths"][f"/v1/{route}"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert response.status_code == 200
    assert problems(document, schema, response.json()) == []
