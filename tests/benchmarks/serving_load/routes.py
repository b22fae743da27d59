"""Rows `recommend`, `rank`, `features`, `retrieve`: each route on a corpus, at one rate and the highest it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.figures.results import ResultRow
from tests.benchmarks.serving_load.baselines import RANK, against_feast, feast_serve, search_ms
from tests.benchmarks.serving_load.client import Request
from tests.benchmarks.serving_load.corpora import Corpus, body
from tests.benchmarks.serving_load.journal import Journal
from tests.benchmarks.serving_load.rates import STEP, AtRate, Load, highest_rate
from tests.benchmarks.serving_load.server import Server, serving
from tests.feature_repo.stores.servers import free_port

RECOMMEND, FEATURES, RETRIEVE = "recommend", "features", "retrieve"
ROUTES = (RECOMMEND, RANK, FEATURES, RETRIEVE)
QUESTIONS = 500
"""Different requests of a route, sent in turns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteLoad:
    """How much is asked."""

    rate: float = 100.0
    """Requests a second; where a route does not keep it up, the highest that it does."""
    requests: int = 100_000
    """Requests of `/v1/recommend` at that rate; a lower rate takes as long."""
    other_requests: int = 12_500
    """Those of the other routes."""
    step_seconds: float = 5.0
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What all measurements share."""

    folder: Path
    """For logs and plans."""
    journal: Journal
    say: Callable[[str], object]
    machine: str
    commit: str


def measure_routes(corpus: Corpus, load: RouteLoad, bench: Bench) -> list[ResultRow]:
    """A row per route; what the journal holds already is not measured again."""
    subject = subject_of(corpus.name, f"{corpus.manifest.release} {corpus.store}", load)
    with _asked_server(corpus, load, bench, [*subject, "rates"]) as server:
        rates = {
            route: bench.journal.once([*subject, "rates", route], lambda route=route: _at_rates(server, route))
            for route in ROUTES
        }
    feast = bench.journal.once([*subject, "feast"], lambda: _against_feast(corpus, load, bench)) if load.feast else {}
    bench.say(f"{corpus.name}: retrieval against faiss")
    search = bench.journal.once([*subject, "search"], lambda: _search(corpus, load))
    return [_row(route, corpus, load, rates[route], feast.get(route, {}), search, bench) for route in ROUTES]


def subject_of(corpus: str, version: str, load: RouteLoad) -> list[Any]:
    """What figures are of, for the journal."""
    return [corpus, version, asdict(load)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A server under load."""

    server: Server
    load: Load
    corpus: Corpus
    how: RouteLoad


@contextmanager
def _asked_server(corpus: Corpus, load: RouteLoad, bench: Bench, subject: list[Any]) -> Iterator[_Asked | None]:
    """A server, unless everything that it is needed for was measured already."""
    if all(bench.journal.has([*subject, route]) for route in ROUTES):
        yield None
        return
    with _serving(corpus, load, bench) as server:
        yield _Asked(
            server=server,
            load=Load(port=server.port, folder=bench.folder, cpu_s=server.cpu_s, say=bench.say),
            corpus=corpus,
            how=load,
        )


def _serving(corpus: Corpus, load: RouteLoad, bench: Bench) -> AbstractContextManager[Server]:
    settings = {
        **corpus.settings,
        "HEADWATER_THREADS": "1",
        "HEADWATER_RETRIEVE": str(load.candidates),
        "HEADWATER_DEADLINE_MS": "10000",
        "HEADWATER_QUEUE": "1000",
    }
    log = bench.folder / f"{corpus.name}.log"
    return serving(corpus.run, free_port(), workers=load.workers, settings=settings, log=log)


def _at_rates(asked: _Asked | None, route: str) -> dict[str, Any]:
    """Figures of a route at the rate, or at the highest that it keeps up where that is less."""
    assert asked is not None
    how, load = asked.how, asked.load
    load.say(f"{asked.corpus.name}: {route}")
    requests = questions(route, asked.corpus, how)
    at: Callable[[float], AtRate] = lambda rate: load.at(rate, how.step_seconds, requests)  # noqa: E731
    if at(how.rate).kept_up:
        highest = max(how.rate, highest_rate(at, how.rate * STEP))
        rate = how.rate
    else:
        highest = highest_rate(at, how.rate / 16, most=how.rate / STEP)
        rate = highest or how.rate / 16
    count = how.requests if route == RECOMMEND else how.other_requests
    first = load.at(rate, count / how.rate, requests)
    peak_mb = max(held.resident_mb for held in asked.server.held().values())
    return {"first": asdict(first), "highest": highest, "peak_mb": round(peak_mb, 1)}


def _against_feast(corpus: Corpus, load: RouteLoad, bench: Bench) -> dict[str, dict[str, float]]:
    """By route, both servers up and taking turns, with nothing else asked meanwhile."""
    counts = {RANK: load.candidates, FEATURES: load.features}
    found = {}
    with _serving(corpus, load, bench) as server, feast_serve(corpus, bench.folder / "feast.log") as feast_port:
        for route, count in counts.items():
            bench.say(f"{corpus.name}: {route} against feast serve")
            bodies = [_body(route, corpus, load, number) for number in range(QUESTIONS)]
            times = against_feast(server.port, feast_port, route, corpus, bodies.__getitem__, count)
            bench.say(f"  {times}")
            found[route] = asdict(times)
    return found


def _search(corpus: Corpus, load: RouteLoad) -> dict[str, float]:
    times, recall = search_ms(corpus, load.candidates)
    return {**asdict(times), "recall": recall}


def _row(
    route: str,
    corpus: Corpus,
    load: RouteLoad,
    rates: Mapping[str, Any],
    feast: Mapping[str, float],
    search: Mapping[str, float],
    bench: Bench,
) -> ResultRow:
    first = AtRate(**rates["first"])
    params = _params(route, corpus, load, first, rates["highest"])
    figures: dict[str, Any] = {"ours": first.latencies_ms["p50"]}
    if feast:
        figures = {"ours": feast["ours_ms"], "stock": feast["theirs_ms"], "spread": feast["spread_ms"]}
    if route == RETRIEVE:
        figures = {"ours": search["ours_ms"], "raw": search["theirs_ms"], "spread": search["spread_ms"]}
        params["recall"] = search["recall"]
    return ResultRow(
        name=route,
        params=params,
        unit="ms",
        peak_mb=rates["peak_mb"],
        n=first.requests,
        machine=bench.machine,
        commit=bench.commit,
        **figures,
    )


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


def _params(route: str, corpus: Corpus, load: RouteLoad, first: AtRate, highest: float) -> dict[str, Any]:
    return {
        "dataset": corpus.name,
        "corpus": corpus.manifest.retrieval.num_pins,
        "dim": corpus.manifest.retrieval.dim - 1,
        "store": corpus.store,
        "workers": load.workers,
        "candidates": load.features if route == FEATURES else load.candidates,
        **(_of_recommend(corpus, load) if route == RECOMMEND else {}),
        "rate": first.rate,
        "failed": first.failed,
        "degraded": first.degraded,
        **{f"{name}_ms": value for name, value in first.latencies_ms.items()},
        **({} if first.own_share is None else {"own_share": first.own_share}),
        **({} if first.cpu_ms is None else {"cpu_ms": first.cpu_ms}),
        "highest_rate": highest,
    }


def _of_recommend(corpus: Corpus, load: RouteLoad) -> dict[str, Any]:
    exported = corpus.export_difference
    return {"k": load.k} | ({} if exported is None else {"export_difference": exported})
