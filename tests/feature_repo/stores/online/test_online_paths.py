"""A server's reads give the same answers directly from a packed store and through Feast from a stock one."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.stores.online.status import OnlineReader
from feature_repo.stores.packed.reader import PackedReader
from tests.feature_repo.stores.online_contract import HOUR, V1, V2, OnlineUnderTest
from tests.feature_repo.stores.online_repos import NOON, TTL, embedding_rows, feature_store, write

PACKED = "feature_repo.stores.sqlite.packed_store.PackedSqliteOnlineStore"


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> tuple[OnlineReader, OnlineReader]:
    """Readers of one file, packed and stock: Pins 1 to 3, of which the second version lacks the third."""
    folder: Path = tmp_path_factory.mktemp("paths")
    online = OnlineUnderTest.applied(folder, {"type": PACKED, "path": str(folder / "online.db")})
    for pin in (1, 2, 3):
        write(online.store, V1, embedding_rows(V1, [pin], value=pin, at=NOON + pin * HOUR))
        if pin < 3:
            write(online.store, V2, embedding_rows(V2, [pin], value=-pin, at=NOON - pin * HOUR))
    stock = feature_store(folder, {"type": "sqlite", "path": str(folder / "online.db")})
    return OnlineReader(online.store, "both", "pin"), OnlineReader(stock, "both", "pin")


@given(
    ids=st.lists(st.integers(0, 4), max_size=8),
    now=st.integers(-5, 60).map(lambda hours: NOON + hours * HOUR)
    | st.sampled_from([NOON + HOUR + TTL, NOON + HOUR + TTL + dt.timedelta(microseconds=1)]),
)
def test_every_path_answers_the_same(
    readers: tuple[OnlineReader, OnlineReader], ids: list[int], now: dt.datetime
) -> None:
    packed, stock = (reader.read(ids, now) for reader in readers)
    assert packed.features.equals(stock.features)
    assert {view: packed.status(view) for view in (V1, V2)} == {view: stock.status(view) for view in (V1, V2)}
    assert packed.event_timestamps == stock.event_timestamps


def test_packed_reader_says_which_stores_it_needs(tmp_path: Path) -> None:
    stock = feature_store(tmp_path, {"type": "sqlite", "path": str(tmp_path / "online.db")})
    with pytest.raises(ValueError, match=r"must be a packed one \(got SqliteOnlineStore\)"):
        PackedReader(stock)
