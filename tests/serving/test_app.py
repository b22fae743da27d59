"""Start-up, readiness and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from feature_repo.release.manifest import load_manifest
from serving.app import create_app
from serving.settings import Settings


def readiness(settings: Settings) -> tuple[int, dict[str, Any]]:
    """Status and body of `/readyz` of a fresh server."""
    with TestClient(create_app(settings)) as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        response = client.get("/readyz")
        return response.status_code, response.json()


def test_ready_server_names_its_release(client: TestClient) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ready",
        "release": "tiny-1",
        "embeddings": ["ctr_v1"],
        "num_pins": 6,
        "as_of": "2026-01-10T00:00:00Z",
        "shadow": None,
        "split": None,
        "warnings": [],
    }


def test_server_does_not_become_ready_when_a_file_was_changed(settings: Settings, release_dir: Path) -> None:
    (release_dir / "pins.faiss").write_bytes(b"not an index")
    status, body = readiness(settings.model_copy(update={"release_dir": release_dir}))
    assert status == 503
    assert body["error"]["code"] == "not_ready"
    assert "pins.faiss must have sha256" in body["error"]["message"]


def test_server_that_is_not_ready_answers_no_request(settings: Settings, tmp_path: Path) -> None:
    with TestClient(create_app(settings.model_copy(update={"release_dir": tmp_path}))) as client:
        response = client.post("/v1/recommend", json={"user_id": 1, "surface": "1"})
    assert response.status_code == 503
    assert "manifest.json must exist" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"services": {"retrieval": "retrieval__ctr_v1", "ranking": "ranking__ctr_v9"}}, "'ranking__ctr_v9'"),
        (
            {"embeddings": [{"model": "ctr", "version": 2, "dim": 2, "space_id": "0123456789ab"}]},
            "user_embedding_ctr_v1",
        ),
        ({"services": {"retrieval": "retrieval", "ranking": "ranking"}}, "user_embedding_ctr_v1__embedding"),
        ({"pin_title": "name"}, "pin_attributes__name"),
    ],
)
def test_server_does_not_become_ready_when_release_and_feast_repo_disagree(
    settings: Settings, edit_manifest: Callable[..., Path], changes: dict[str, Any], names: str
) -> None:
    status, body = readiness(settings.model_copy(update={"release_dir": edit_manifest(**changes)}))
    assert status == 503
    assert names in body["error"]["message"]


def test_server_does_not_become_ready_when_a_program_reads_what_no_encoder_makes(
    settings: Settings, edit_manifest: Callable[..., Path], release_dir: Path
) -> None:
    encoders = load_manifest(release_dir).model_dump(mode="json", by_alias=True)["encoders"]
    encoders["ranking.pin"]["dense"] = []
    status, body = readiness(settings.model_copy(update={"release_dir": edit_manifest(encoders=encoders)}))
    assert status == 503
    assert "ctr.onnx reads ['pin_dense']" in body["error"]["message"]


def test_server_does_not_become_ready_without_a_feast_repo(settings: Settings, tmp_path: Path) -> None:
    status, body = readiness(settings.model_copy(update={"repo_dir": tmp_path}))
    assert status == 503
    assert "feature_store.yaml" in body["error"]["message"]


def test_settings_come_from_the_environment(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_RUN", str(tiny_run))
    monkeypatch.setenv("HEADWATER_RETRIEVE", "3")
    settings: Settings = create_app().state.settings
    assert settings.repo_path == tiny_run / "feature_repo"
    assert settings.retrieve == 3


@pytest.mark.parametrize("value", ["0", "many"])
def test_settings_name_a_bad_variable(tiny_run: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HEADWATER_RETRIEVE", value)
    with pytest.raises(ValueError, match="retrieve"):
        Settings(run=tiny_run)


def test_retrieve_bounds_the_candidates_that_are_ranked(settings: Settings) -> None:
    """The three nearest Pins are 101, 102 and 106, which is unknown online."""
    with TestClient(create_app(settings.model_copy(update={"retrieve": 3}))) as client:
        answer = client.post("/v1/recommend", json={"user_id": 1, "surface": "0", "k": 2}).json()
    assert [item["pin_id"] for item in answer["ranked"]] == [102, 101]
    assert answer["missing"]["unknown"] == 1


@pytest.mark.parametrize("content_length", [True, False])
def test_body_limit_follows_the_setting(settings: Settings, content_length: bool) -> None:
    body = b'{"user_id": 1, "surface": "1"}'
    with TestClient(create_app(settings.model_copy(update={"max_body_bytes": len(body)}))) as client:
        statuses = [
            client.post("/v1/recommend", content=sent if content_length else iter([sent])).status_code
            for sent in (body, body + b" ")
        ]
    assert statuses == [200, 413]
