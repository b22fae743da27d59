"""Bodies that no client should send, and files that change under a server: the documented answer each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.serving.tiny_run import NOW

GOOD = {"user_id": 1, "surface": "0"}
MILLION = json.dumps(GOOD | {"candidates": list(range(1_000_000))}).encode()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(MILLION, 413, "body_too_long", id="a million candidates"),
        pytest.param(b"[" * 50_000, 400, "malformed_json", id="brackets without end"),
        pytest.param(b'{"user_id": ' + b"9" * 5000 + b"}", 400, "malformed_json", id="a number of 5,000 digits"),
        pytest.param(b'{"user_id": 1e400, "surface": "0"}', 422, "invalid_request", id="an infinite number"),
        pytest.param(b'{"user_id": NaN, "surface": "0"}', 422, "invalid_request", id="not a number"),
        pytest.param(b'{"user_id": 1, "surface": "\\ud800"}', 422, "invalid_request", id="half a character"),
        pytest.param(b'{"user_id": 1, "surface": "\\u0000"}', 422, "unknown_surface", id="a zero byte"),
        pytest.param(json.dumps(GOOD | {"surface": "x" * 201}).encode(), 422, "invalid_request", id="a long text"),
        pytest.param(b"\xff\xfe", 400, "malformed_json", id="no UTF-8"),
        pytest.param(b"", 422, "invalid_request", id="nothing"),
        pytest.param(b'"text"', 422, "invalid_request", id="no object"),
    ],
)
@pytest.mark.parametrize("route", ["recommend", "retrieve"])
def test_absurd_body_gets_the_documented_answer(
    client: TestClient, route: str, body: bytes, status: int, code: str
) -> None:
    response = client.post(f"/v1/{route}", content=body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_files_that_change_under_a_server_change_no_answer(changing_run: Path) -> None:
    """Truncated in place, which would end a process that had mapped the file, and swapped for another."""
    folder = changing_run / "releases" / "tiny-1"
    with TestClient(create_app(Settings(run=changing_run, as_of=NOW, threads=1))) as client:
        before = client.post("/v1/recommend", json=GOOD).json()
        for name, content in (("pins.faiss", b""), ("ctr.onnx", b"swapped"), ("candidate_tower.onnx", b"")):
            (folder / name).write_bytes(content)
        assert client.post("/v1/recommend", json=GOOD).json() == before
        assert client.post("/v1/similar", json={"pin_id": 101}).status_code == 200
        assert client.get("/readyz").status_code == 200
