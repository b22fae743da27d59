"""A Milvus server by its URI: milvus-lite's own server in another process, so no lite file is open in this one."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("pymilvus", reason="needs the extra `milvus`")
pytest.importorskip("milvus_lite", reason="needs the extra `milvus`")

from feast import FeatureStore
from feast.filter_models import ComparisonFilter

from feature_repo.stores.online.errors import OnlineStoreUnavailableError
from tests.feature_repo.stores.milvus.test_milvus_search import PIN, online, open_store, search, table, view, write
from tests.feature_repo.stores.servers import HOST, free_port

START_TIMEOUT_S = 30.0
LONG_AGO = datetime.now(UTC) - timedelta(hours=9)


@contextmanager
def running(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server of the data in `folder`, killed afterwards."""
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), "--host", HOST]
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(port)
            yield server
        finally:
            server.kill()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"the server must answer on port {port} within {START_TIMEOUT_S} seconds")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    chosen = free_port()
    with running(tmp_path_factory.mktemp("server") / "data.db", chosen):
        yield chosen


def client(folder: Path, port: int, name: str) -> FeatureStore:
    """A repo on the server, with a view of its own."""
    store = open_store(folder, path="", uri=f"http://{HOST}:{port}", timeout_s=20.0)
    store.apply([PIN, view(name, 4)])
    return store


def write_when_well(store: FeatureStore, name: str, rows: pa.Table) -> int:
    """Try again as the error says: a connection takes seconds to find its server again."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return write(store, name, rows)
        except OnlineStoreUnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_pins_on_a_server_are_found_with_filters(tmp_path: Path, port: int) -> None:
    store = client(tmp_path, port, "found")
    vectors = np.eye(4, dtype=np.float32)
    assert write(store, "found", table(vectors)) == 4
    only = ComparisonFilter(type="in", key="pin_id", value=[2, 3])
    found = search(store, "found", vectors[3], top_k=2, filters=only)
    answer = store.get_online_features(["found:clicks"], {"pin_id": [0, 9]}).to_dict()
    online(store).disconnect()
    assert found["pin_id"] == [3, 2]
    assert found["embedding"] == [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]]
    assert answer["clicks"] == [0, None]


def test_order_holds_between_clients_of_a_server(tmp_path: Path, port: int) -> None:
    """Neither knows what the other wrote, so both must ask."""
    one, other = client(tmp_path, port, "shared"), client(tmp_path, port, "shared")
    assert write(one, "shared", table(np.full((2, 4), 1.0, np.float32))) == 2
    assert write(other, "shared", table(np.full((3, 4), 2.0, np.float32), LONG_AGO)) == 1
    answer = one.get_online_features(["shared:embedding"], {"pin_id": [0, 1, 2]}).to_dict()["embedding"]
    for store in (one, other):
        online(store).disconnect()
    assert [vector[0] for vector in answer] == [1.0, 1.0, 2.0]


def test_index_on_a_server_has_the_configured_parameters(tmp_path: Path, port: int) -> None:
    parameters = {"M": 8, "efConstruction": 64}
    store = open_store(tmp_path, path="", uri=f"http://{HOST}:{port}", index_type="HNSW", index_params=parameters)
    store.apply([PIN, view("indexed", 4)])
    described = online(store).client.describe_index("search_indexed", "vector_index_embedding")
    online(store).disconnect()
    assert (described["index_type"], described["metric_type"]) == ("HNSW", "COSINE")


def test_server_that_goes_away_is_named_with_the_view_and_serves_again_when_it_is_back(tmp_path: Path) -> None:
    port, rows = free_port(), table(np.eye(4, dtype=np.float32))
    with running(tmp_path / "data.db", port) as server:
        store = client(tmp_path, port, "pins")
        write(store, "pins", rows)
        server.kill()
        server.wait()
        with pytest.raises(OnlineStoreUnavailableError, match=r"Milvus must .* for feature view pins"):
            write(store, "pins", rows)
        with pytest.raises(OnlineStoreUnavailableError, match=r"Milvus must .* for feature view pins"):
            search(store, "pins", [1.0] * 4)
    with running(tmp_path / "data.db", port):
        assert write_when_well(store, "pins", rows) == 4
        found = search(store, "pins", [0.0, 0.0, 1.0, 0.0], top_k=1)["pin_id"]
        online(store).disconnect()
    assert found == [2]
