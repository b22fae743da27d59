"""Online reads of Pins, call by call: our direct read, `get_online_features` on both stores, and the bare clients.

Every way reads the same rows, which our store wrote, and the same keys in the same order. The bare clients get their
keys ready-made and leave scalars and times as bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from feature_repo.stores.packed.reader import PackedReader
from tests.benchmarks.store_paths.made_data import PINS
from tests.benchmarks.store_paths.online_raw import RAW_READS
from tests.benchmarks.store_paths.plan import OURS, STOCK
from tests.benchmarks.store_paths.repos import FEATURES, VIEW, online_settings, open_repo, pin_vectors
from tests.benchmarks.store_paths.worker import Repetition, Setup, Way

_SEED = 11
_WARM_UP_CALLS = 20

Ids = npt.NDArray[np.int64]
Read = Callable[[Ids], Any]
"""Answers one call."""
Vectors = Callable[[Any], npt.NDArray[np.float32]]
"""Vectors in the answer of a call, in the order of the keys."""


class Calls:
    """A part of all calls, each timed by itself; the first ones are not counted."""

    def __init__(self, setup: Setup, read: Read, vectors: Vectors) -> None:
        self._setup, self._read, self._vectors = setup, read, vectors

    def repeat(self, number: int) -> Repetition:
        """Read as many times as `calls` of the setup says, other Pins in every call."""
        params = self._setup.params
        random = np.random.default_rng([_SEED, number])
        size = (_WARM_UP_CALLS + int(params["calls"]), int(params["pins"]))
        asked = random.integers(0, int(params["population"]), size)
        seconds, total = [], 0.0
        for ids in asked:
            began = time.perf_counter()
            answer = self._read(ids)
            seconds.append(time.perf_counter() - began)
            total += float(self._vectors(answer)[:, 0].astype(np.float64).sum())
        return Repetition(seconds=seconds[_WARM_UP_CALLS:], answer={"sum": total})


class Fill:
    """Writes the Pins that all ways read; there is nothing to repeat."""

    def __init__(self, setup: Setup) -> None:
        store = _open(setup, OURS)
        online, view = store._get_provider().online_store, store.get_feature_view(VIEW)
        online.write_table(store.config, view, pq.read_table(setup.data / PINS))

    def repeat(self, number: int) -> Repetition:
        """No calls."""
        return Repetition(seconds=[], answer={"part": float(number)})


def _open(setup: Setup, variant: str) -> Any:
    name, dim = str(setup.params["store"]), int(setup.params["dim"])
    settings = online_settings(name, variant, setup.data, dim, setup.redis_port)
    return open_repo(setup.folder, variant, [pin_vectors(setup.data / PINS, dim)], online=settings)


def _read_matrix(setup: Setup) -> Way:
    reader = PackedReader(_open(setup, OURS))
    return Calls(setup, lambda ids: reader.read_matrix(VIEW, ids), lambda answer: answer[0])


def _read_all(setup: Setup) -> Way:
    reader = PackedReader(_open(setup, OURS))

    def read(ids: Ids) -> Any:
        rows = reader.read([VIEW], ids)[VIEW]
        return rows.matrix(), rows.scalars(), rows.event_timestamps, rows.status

    return Calls(setup, read, lambda answer: answer[0])


def _get_online_features(variant: str, names: Sequence[str], setup: Setup) -> Way:
    store = _open(setup, variant)
    features = [f"{VIEW}:{name}" for name in names]

    def read(ids: Ids) -> Any:
        return store.get_online_features(features, {"pin_id": ids.tolist()}).to_dict()

    return Calls(setup, read, lambda answer: np.array(answer["embedding"], np.float32))


def _raw(names: Sequence[str], setup: Setup) -> Way:
    store = _open(setup, STOCK)
    settings = online_settings(str(setup.params["store"]), STOCK, setup.data, 0, setup.redis_port)
    read = RAW_READS[str(setup.params["store"])](store.get_feature_view(VIEW), settings, names, setup.params)
    return Calls(setup, read, lambda answer: answer[0])


WAYS: dict[str, Callable[[Setup], Way]] = {
    "fill": Fill,
    "read_matrix": _read_matrix,
    "read_all": _read_all,
    "get_online_features": partial(_get_online_features, OURS, FEATURES),
    STOCK: partial(_get_online_features, STOCK, FEATURES),
    "stock_vector": partial(_get_online_features, STOCK, FEATURES[:1]),
    "raw_vector": partial(_raw, FEATURES[:1]),
    "raw_all": partial(_raw, FEATURES),
}
