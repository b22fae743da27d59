"""The Milvus store keeps what every online store promises, on milvus-lite."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pymilvus", reason="needs the extra `milvus`")
pytest.importorskip("milvus_lite", reason="needs the extra `milvus`")

from feature_repo.stores.milvus.client import close_lite, connect_lite
from feature_repo.stores.online.errors import OnlineStoreUnavailableError
from tests.feature_repo.stores.online_contract import OnlineStoreContract, OnlineUnderTest

OWNER = """
import sys
from pymilvus import MilvusClient
client = MilvusClient(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineUnderTest]:
    folder = tmp_path_factory.mktemp("milvus")
    settings = {
        "type": "feature_repo.stores.milvus.packed_store.PackedMilvusOnlineStore",
        "path": str(folder / "online.db"),
    }
    found = OnlineUnderTest.applied(folder, settings)
    yield found
    found.store._get_provider().online_store.disconnect()


class TestPackedMilvus(OnlineStoreContract):
    def test_two_processes_leave_the_newest_row(self, tmp_path: Path) -> None:
        """One process owns a milvus-lite file, so order holds; a second one is told so, until the first has ended."""
        path = tmp_path / "owned.db"
        command = [sys.executable, "-c", OWNER, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            assert owner.stdin is not None
            assert owner.stdout.readline() == "open\n"
            expected = f"milvus-lite file {path} must be open in one process at a time"
            with pytest.raises(OnlineStoreUnavailableError, match=expected):
                connect_lite(path)
            owner.stdin.close()
        connect_lite(path).close()
        close_lite(path)
