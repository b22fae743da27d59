"""Ids that are texts outside: hashed as ingestion hashes them, and answered as callers wrote them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from feature_repo.release.files import sha256_of
from feature_repo.release.manifest import load_manifest
from feature_repo.release.text_ids import key_of_text
from serving.app import create_app
from serving.entity_ids import EntityIds
from serving.errors import RequestError
from serving.settings import Settings
from tests.serving.tiny_run import VECTORS
from trainers.data.event_log import EventLog
from trainers.data.source_files import hashed_key
from trainers.life.text_ids import ids_as_written, write_text_ids

TEXTS = {pin: f"pin-{pin % 100}" for pin in VECTORS}


@pytest.mark.parametrize("text", ["visitor-1", "", "é", "a" * 200, "712", "名"])
def test_key_of_a_text_is_what_ingestion_makes_of_it(text: str) -> None:
    (expected,) = duckdb.execute(f"SELECT {hashed_key('$text')}", {"text": text}).fetchall()[0]
    assert key_of_text(text) == expected


def test_pins_are_shown_by_their_texts_and_pushed_ones_by_their_numbers() -> None:
    ids = EntityIds(
        texts=frozenset({"pin"}), pin_keys=np.array([3, 7]), pin_texts=pa.chunked_array([["three", "seven"]])
    )
    assert ids.shown_pins(np.array([7, 5, 3, 9])) == ["seven", 5, "three", 9]
    assert ids.keys("pin", ["three"], "pin_ids") == [key_of_text("three")]
    with pytest.raises(RequestError, match=r"pin_ids\.1 must be a text.*got 7"):
        ids.keys("pin", ["three", 7], "pin_ids")


@pytest.fixture
def client(settings: Settings, release_dir: Path, edit_manifest: Callable[..., Path]) -> Any:
    """A server of a release whose ids are texts."""
    table = pa.table({"pin_id": pa.array(list(TEXTS), pa.int64()), "key": list(TEXTS.values())})
    pq.write_table(table, release_dir / "pin_texts.parquet")
    digests = dict(load_manifest(release_dir).sha256) | {
        "pin_texts.parquet": sha256_of(release_dir / "pin_texts.parquet")
    }
    edit_manifest(text_ids={"user": True, "pins": "pin_texts.parquet"}, sha256=digests)
    with TestClient(create_app(settings.model_copy(update={"release_dir": release_dir}))) as found:
        yield found


def test_answers_speak_the_ids_of_whoever_asks(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"user_id": "ann", "surface": "1"}).json()
    assert answer["user"]["user_id"] == "ann"
    assert (answer["cold_start"], [each["pin_id"] for each in answer["ranked"]]) == (True, ["pin-2", "pin-3", "pin-4"])
    ranked = client.post("/v1/rank", json={"user_id": "ann", "surface": "1", "pin_ids": ["pin-2"]}).json()
    # Its features lie under 102, not under the hash of its text.
    assert ranked["missing"] == ["pin-2"]
    found = client.post("/v1/features", json={"entity": "user", "ids": ["ann"]}).json()
    assert found["results"][0]["id"] == "ann"


def test_number_is_no_id_where_ids_are_texts(client: TestClient) -> None:
    response = client.post("/v1/recommend", json={"user_id": 1, "surface": "1"})
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith("user_id must be a text")
    assert "user must be" not in client.get("/", params={"user": "1"}).text


@pytest.mark.parametrize(
    ("files", "declared"),
    [
        ((), {}),
        (("keys_user.parquet",), {"text_ids": {"user": True, "pins": None}}),
        (("keys_user.parquet", "keys_pin.parquet"), {"text_ids": {"user": True, "pins": "pin_texts.parquet"}}),
    ],
)
def test_release_gets_the_texts_that_its_log_has(tmp_path: Path, files: tuple[str, ...], declared: object) -> None:
    log, release = tmp_path / "event_log", tmp_path / "release"
    for folder in (log, release):
        folder.mkdir()
    (log / "spec.json").write_text("{}")
    for name in files:
        (log / name).write_bytes(b"texts")
    assert write_text_ids(EventLog(log), release) == declared
    assert (release / "pin_texts.parquet").exists() == ("keys_pin.parquet" in files)


def test_keys_read_as_the_log_wrote_them(tmp_path: Path) -> None:
    table = pa.table({"user_id": pa.array([5, 9], pa.int64()), "key": ["five", "nine"]})
    pq.write_table(table, tmp_path / "keys_user.parquet")
    (tmp_path / "spec.json").write_text("{}")
    assert ids_as_written(EventLog(tmp_path), "user", [9, 7, 5]) == ["nine", 7, "five"]
    assert ids_as_written(EventLog(tmp_path), "pin", [9, 7]) == [9, 7]
