"""Rows `recommend`, `rank`, `features`, `retrieve`: each route on a corpus, at one rate and the highest it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.figures.results import ResultRow
from tests.benchmarks.serving_load.baselines import feast_read_ms, feast_serve, search_ms, served_ms
from tests.benchmarks.serving_load.client import Request
from tests.benchmarks.serving_load.corpora import Corpus, body
from tests.benchmarks.serving_load.rates import AtRate, Load, highest_rate
from tests.benchmarks.serving_load.server import serving
from tests.feature_repo.stores.servers import free_port

RECOMMEND, RANK, FEATURES, RETRIEVE = "recommend", "rank", "features", "retrieve"
ROUTES = (RECOMMEND, RANK, FEATURES, RETRIEVE)
QUESTIONS = 500
"""Different requests of a route, sent in turns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteLoad:
    """How much is asked."""

    rate: float = 100.0
    """Requests a second of the first measurement."""
    requests: int = 12_500
    """Requests of the first measurement."""
    step_seconds: float = 10.0
    """Length of each measurement on the way to the highest rate."""
    workers: int = 2
    candidates: int = 500
    """Pins that `/v1/recommend` retrieves and ranks, `/v1/rank` is given and `/v1/retrieve` answers."""
    features: int = 1000
    """Pins that `/v1/features` is asked for."""
    k: int = 50
    """Pins that `/v1/recommend` answers."""
    feast: bool = True
    """Measure `feast serve` too."""


def measure_routes(corpus: Corpus, load: RouteLoad, folder: Path, *, machine: str, commit: str) -> Iterator[ResultRow]:
    """A row per route; baselines are measured in the same minutes, with nothing else asked meanwhile."""
    settings = {
        **corpus.settings,
        "HEADWATER_THREADS": "1",
        "HEADWATER_RETRIEVE": str(load.candidates),
        "HEADWATER_DEADLINE_MS": "10000",
        "HEADWATER_QUEUE": "1000",
    }
    log = folder / f"{corpus.name}.log"
    with serving(corpus.run, free_port(), workers=load.workers, settings=settings, log=log) as server:
        asked = Load(port=server.port, folder=folder)
        measured = {route: _measure(asked, questions(route, corpus, load), load) for route in ROUTES}
        alone = {route: _alone_ms(server.port, route, corpus, load) for route in (RANK, FEATURES)}
        peak_mb = max(held.resident_mb for held in server.held().values())
    compared = _feast(corpus, load, folder) if load.feast else {}
    ours, raw, recall = search_ms(corpus, load.candidates)
    for route, (first, highest) in measured.items():
        row = ResultRow(
            name=route,
            params=_params(route, corpus, load, first, highest),
            unit="ms",
            ours=first.latencies_ms["p50"],
            peak_mb=round(peak_mb, 1),
            n=first.requests,
            machine=machine,
            commit=commit,
        )
        if route in alone:
            row = row.model_copy(update={"ours": alone[route], "stock": compared.get(route)})
        if route == RETRIEVE:
            row = row.model_copy(update={"ours": ours, "raw": raw, "params": {**row.params, "recall": recall}})
        yield row


def questions(route: str, corpus: Corpus, load: RouteLoad) -> list[Request]:
    """Different requests of a route."""
    return [
        Request(path=f"/v1/{route}", body=_body(route, corpus, load, number), answers=()) for number in range(QUESTIONS)
    ]


def _body(route: str, corpus: Corpus, load: RouteLoad, number: int) -> str:
    random = np.random.default_rng(number)
    user = int(random.choice(corpus.users))
    if route == RECOMMEND:
        return body(user_id=user, surface=corpus.surface, k=load.k)
    if route == RANK:
        return body(user_id=user, surface=corpus.surface, pin_ids=_some(random, corpus, load.candidates))
    if route == FEATURES:
        return body(entity="pin", ids=_some(random, corpus, load.features))
    return body(user_id=user, k=load.candidates)


def _some(random: np.random.Generator, corpus: Corpus, count: int) -> list[int]:
    pins = np.unique(corpus.pins)
    chosen: list[int] = random.choice(pins, min(count, len(pins)), replace=False).tolist()
    return chosen


def _measure(asked: Load, requests: list[Request], load: RouteLoad) -> tuple[AtRate, float]:
    """Figures at the rate, and the highest rate."""
    first = asked.at(load.rate, load.requests / load.rate, requests)
    at: Callable[[float], AtRate] = lambda rate: asked.at(rate, load.step_seconds, requests)  # noqa: E731
    if first.kept_up:
        return first, max(load.rate, highest_rate(at, load.rate * 1.25))
    return first, highest_rate(at, load.rate / 8, most=load.rate)


def _alone_ms(port: int, route: str, corpus: Corpus, load: RouteLoad) -> float:
    return served_ms(port, f"/v1/{route}", lambda number: _body(route, corpus, load, number))


def _feast(corpus: Corpus, load: RouteLoad, folder: Path) -> dict[str, float]:
    with feast_serve(corpus, folder / "feast.log") as port:
        return {
            RANK: feast_read_ms(port, corpus, load.candidates),
            FEATURES: feast_read_ms(port, corpus, load.features),
        }


def _params(route: str, corpus: Corpus, load: RouteLoad, first: AtRate, highest: float) -> dict[str, Any]:
    return {
        "dataset": corpus.name,
        "corpus": corpus.manifest.retrieval.num_pins,
        "dim": corpus.manifest.retrieval.dim - 1,
        "store": corpus.store,
        "workers": load.workers,
        "candidates": load.features if route == FEATURES else load.candidates,
        **({"k": load.k} if route == RECOMMEND else {}),
        "rate": first.rate,
        "failed": first.failed,
        "degraded": first.degraded,
        **{f"{name}_ms": value for name, value in first.latencies_ms.items()},
        **({} if first.own_share is None else {"own_share": first.own_share}),
        "highest_rate": highest,
    }
