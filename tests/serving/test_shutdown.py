"""A server that is told to stop ends the answers in hand, takes no new ones, and is gone."""

from __future__ import annotations

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from serving.retriever import Found, Retriever
from serving.settings import Settings
from tests.serving.test_page import listening

PATIENCE_S = 60.0


def ask(address: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE_S)
    connection.request("POST", "/v1/recommend", json.dumps({"user_id": 1, "surface": "0"}))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_answer_in_hand_is_given_before_the_server_ends(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, began, retrieve = threading.Event(), threading.Event(), Retriever.retrieve

    def slowly(self: Retriever, *arguments: Any) -> Found:
        began.set()
        assert may_end.wait(PATIENCE_S)
        return retrieve(self, *arguments)

    with ThreadPoolExecutor(1) as pool:
        with listening(settings) as address:
            monkeypatch.setattr(Retriever, "retrieve", slowly)
            taken = pool.submit(ask, address)
            assert began.wait(PATIENCE_S)
            # Leaving the block tells the server to stop, and waits until it has.
            threading.Timer(0.5, may_end.set).start()
        status, answer = taken.result(PATIENCE_S)
        with pytest.raises(OSError, match="refused"):
            ask(address)
    assert (status, answer["degraded"], answer["release"]) == (200, None, "tiny-1")
