"""What the routes are compared with: `feast serve` for the same reads, and faiss itself for the same searches."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import yaml

from feature_repo.contract import join_key
from feature_repo.layout import open_store
from feature_repo.release.agreement import references_by_service
from serving.retriever import load_retriever
from tests.benchmarks.serving_load.corpora import Corpus
from tests.feature_repo.stores.servers import HOST, free_port
from trainers.life.index_kinds import recall

RANK = "rank"
"""The route whose answer takes features of the user, too."""
START_PATIENCE_S = 120.0
WARM_UP, REPEATS = 1, 5
ROUNDS = 5
"""Times that ours and what it is compared with take turns."""
SEARCHES = 100
_SERVE = "from feast.cli.cli import cli; import sys; cli(sys.argv[1:])"


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """The same work done in two ways, in turns: of each way the median of its rounds."""

    ours_ms: float
    theirs_ms: float
    spread_ms: float
    """Of our rounds, the slowest less the fastest."""


def compared(ours: Callable[[int], object], theirs: Callable[[int], object], repeats: int = REPEATS) -> Compared:
    """Median times of two ways that take turns."""
    rounds = [(p50_ms(ours, repeats), p50_ms(theirs, repeats)) for _ in range(ROUNDS)]
    own, other = zip(*rounds, strict=True)
    return Compared(
        ours_ms=statistics.median(own),
        theirs_ms=statistics.median(other),
        spread_ms=round(max(own) - min(own), 3),
    )


def p50_ms(call: Callable[[int], object], repeats: int) -> float:
    """Median time of a call, one after the other."""
    for number in range(WARM_UP):
        call(number)
    times = []
    for number in range(WARM_UP, WARM_UP + repeats):
        began = time.perf_counter()
        call(number)
        times.append(1000 * (time.perf_counter() - began))
    return round(float(np.median(times)), 3)


@contextlib.contextmanager
def feast_serve(corpus: Corpus, log: Path) -> Iterator[int]:
    """Feast's own feature server, with Feast's own client of the store that the run's repo has; gives its port.

    Raises:
        RuntimeError: It did not answer in time.
    """
    port, repo = free_port(), stock_repo(corpus, log.parent / f"{corpus.name}-{corpus.store}-stock")
    command = [sys.executable, "-c", _SERVE, "--chdir", str(repo), "serve", "--host", HOST, "--port", str(port)]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **corpus.settings})
    try:
        deadline = time.monotonic() + START_PATIENCE_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"feast serve must answer (it did not); its log ends:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def stock_repo(corpus: Corpus, folder: Path) -> Path:
    """The corpus's feature repo with Feast's client in the place of ours: they read the same bytes."""
    settings = yaml.safe_load((corpus.repo / "feature_store.yaml").read_text())
    own = settings["online_store"]
    kept = {"redis": "connection_string", "sqlite": "path"}[corpus.store]
    settings["online_store"] = {"type": corpus.store, kept: own[kept]}
    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    if not (folder / "data").exists():
        (folder / "data").symlink_to((corpus.repo / "data").resolve())
    return folder


def against_feast(
    port: int, feast_port: int, route: str, corpus: Corpus, body_of: Callable[[int], str], count: int
) -> Compared:
    """Our route, and `feast serve` asked for the same features of the same number of Pins, one after the other."""
    path = f"/v1/{route}"
    asked = [json.loads(body_of(number)) for number in range(WARM_UP + REPEATS)]
    feast = [_feast_body(corpus, number, count, with_user=route == RANK) for number in range(WARM_UP + REPEATS)]
    return compared(
        lambda number: _post(port, path, asked[number]),
        lambda number: _post(feast_port, "/get-online-features", feast[number]),
    )


def _feast_body(corpus: Corpus, number: int, count: int, *, with_user: bool) -> dict[str, Any]:
    """All Pin features that the release's rankers may read, for some Pins; and those of the user where they score."""
    pins = np.random.default_rng(number).choice(corpus.pins, count, replace=False).tolist()
    entities = {join_key("pin"): pins}
    if with_user:
        entities[join_key("user")] = [int(corpus.users[number])] * count
        return {"feature_service": corpus.manifest.services.ranking, "entities": entities, "full_feature_names": True}
    services = references_by_service(open_store(corpus.repo), corpus.manifest.services)
    references = services[corpus.manifest.services.ranking]["pin"]
    return {"features": list(references), "entities": entities, "full_feature_names": True}


def search_ms(corpus: Corpus, depth: int) -> tuple[Compared, float]:
    """Median times of our retrieval and of faiss itself for the same queries, and recall against an exact search."""
    retriever = load_retriever(corpus.release_dir, corpus.manifest, threads=1)
    raw = faiss.read_index(str(corpus.release_dir / corpus.manifest.retrieval.index))
    queries = _queries(corpus, raw)
    found = compared(
        lambda number: retriever.search(queries[number : number + 1], depth, ()),
        lambda number: raw.search(queries[number : number + 1], depth),
        SEARCHES,
    )
    return found, round(recall(raw, _exact(raw), queries, depth), 4)


def _queries(corpus: Corpus, index: faiss.Index) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Vectors near those of Pins, which end with 1 as queries do."""
    random = np.random.default_rng(3)
    if isinstance(index, faiss.IndexIVF):
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
    pins = random.choice(corpus.pins, SEARCHES + WARM_UP)
    known = [pin for pin in pins.tolist() if _has(index, pin)] or [corpus.manifest.popular["*"][0]]
    vectors = np.array([index.reconstruct(pin) for pin in random.choice(known, SEARCHES + WARM_UP).tolist()])
    vectors[:, :-1] += random.standard_normal(vectors[:, :-1].shape) * 0.3 / np.sqrt(vectors.shape[1])
    vectors[:, -1] = 1.0
    return np.ascontiguousarray(vectors, np.float32)


def _has(index: faiss.Index, pin: int) -> bool:
    try:
        index.reconstruct(pin)
    except RuntimeError:
        return False
    return True


def _exact(index: faiss.Index) -> faiss.Index:
    """Every vector of an index, compared with each query."""
    if not isinstance(index, faiss.IndexIVF):
        return index
    exact = faiss.IndexIDMap2(faiss.IndexFlatIP(index.d))
    lists = index.invlists
    for number in range(index.nlist):
        size = lists.list_size(number)
        if size:
            codes = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size).copy()
            exact.add_with_ids(codes.view(np.float32).reshape(size, -1).copy(), ids)
    return exact


def _answers(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection(HOST, port, timeout=10)) as connection:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
    except OSError:
        return False


def _post(port: int, path: str, content: object) -> bytes:
    with closing(http.client.HTTPConnection(HOST, port, timeout=60)) as connection:
        connection.request("POST", path, json.dumps(content), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{path} must answer with status 200 (got {answer.status}: {text[:500]!r})")
    return text
