"""`feast materialize` of one view into an empty online store: through our engine, and as Feast does it by itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import redis
from feast import FeatureStore

from tests.benchmarks.store_paths.made_data import PINS
from tests.benchmarks.store_paths.materialize_raw import RAW_WRITES
from tests.benchmarks.store_paths.online_tables import close_milvus, count_rows
from tests.benchmarks.store_paths.plan import OURS, RAW, STOCK
from tests.benchmarks.store_paths.repos import VIEW, online_settings, open_repo, pin_vectors
from tests.benchmarks.store_paths.worker import Repetition, Setup, Way


class Materialize:
    """Into a store that is emptied before every repetition, by a repo that is made anew."""

    def __init__(self, variant: str, setup: Setup) -> None:
        self._variant, self._setup = variant, setup
        self._store = str(setup.params["store"])

    def repeat(self, number: int) -> Repetition:
        """Materialize all rows, and count what the store holds then."""
        folder = self._setup.folder / str(number)
        store, settings = _emptied(self._setup, self._variant, folder)
        # Feast takes another name of this moment for each view; the interval has all rows.
        now = datetime.now(UTC)
        work: Callable[[], float]
        if self._variant == RAW:
            batches = self._setup.data / PINS
            work = partial(RAW_WRITES[self._store], store, settings, batches)
        else:
            work = partial(_materialize, store, now - timedelta(days=1), now)
        seconds = work()
        answer = {"rows": float(count_rows(self._store, settings, store))}
        _let_go(self._store, store, settings)
        shutil.rmtree(folder)
        return Repetition(seconds=[seconds], answer=answer)


def _emptied(setup: Setup, variant: str, folder: Path) -> tuple[FeatureStore, dict[str, Any]]:
    name, dim = str(setup.params["store"]), int(setup.params["dim"])
    if setup.redis_port:
        # Without the word a server frees in the background, that is during the repetition.
        redis.Redis(port=setup.redis_port).execute_command("FLUSHALL", "SYNC")
    settings = online_settings(name, variant, folder, dim, setup.redis_port)
    store = open_repo(folder, variant, [pin_vectors(setup.data / PINS, dim)], online=settings)
    return store, settings


def _materialize(store: FeatureStore, start: datetime, end: datetime) -> float:
    began = time.perf_counter()
    store.materialize(start, end, feature_views=[VIEW])
    return time.perf_counter() - began


def _let_go(name: str, store: FeatureStore, settings: dict[str, Any]) -> None:
    online = store._get_provider().online_store
    if name == "sqlite" and online._conn:
        online._conn.close()
    if name == "milvus":
        close_milvus(online, settings)


WAYS: dict[str, Callable[[Setup], Way]] = {each: partial(Materialize, each) for each in (OURS, STOCK, RAW)}
