"""What the routes are compared with: `feast serve` for the same reads, and faiss itself for the same searches."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np

from feature_repo.contract import join_key
from serving.retriever import load_retriever
from tests.benchmarks.serving_load.corpora import Corpus
from tests.feature_repo.stores.servers import HOST, free_port
from trainers.life.index_kinds import recall

START_PATIENCE_S = 120.0
WARM_UP, REPEATS = 5, 40
SEARCHES = 400
_SERVE = "from feast.cli.cli import cli; import sys; cli(sys.argv[1:])"


def p50_ms(call: Callable[[int], object], repeats: int = REPEATS) -> float:
    """Median time of a call, one after the other."""
    for number in range(WARM_UP):
        call(number)
    times = []
    for number in range(repeats):
        began = time.perf_counter()
        call(number)
        times.append(1000 * (time.perf_counter() - began))
    return round(float(np.median(times)), 3)


@contextlib.contextmanager
def feast_serve(corpus: Corpus, log: Path) -> Iterator[int]:
    """Feast's own feature server on the run's repo; gives its port.

    Raises:
        RuntimeError: It did not answer in time.
    """
    port, repo = free_port(), corpus.run / "feature_repo"
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


def feast_read_ms(port: int, corpus: Corpus, count: int) -> float:
    """Median time in which `feast serve` answers all Pin features of the ranking service for some Pins."""
    service = corpus.manifest.services.ranking

    def read(number: int) -> None:
        pins = np.random.default_rng(number).choice(corpus.pins, count, replace=False).tolist()
        users = [int(corpus.users[number])] * count
        entities = {join_key("pin"): pins, join_key("user"): users}
        _post(
            port, "/get-online-features", {"feature_service": service, "entities": entities, "full_feature_names": True}
        )

    return p50_ms(read)


def served_ms(port: int, path: str, body_of: Callable[[int], str]) -> float:
    """Median time in which our server answers, asked one after the other."""
    return p50_ms(lambda number: _post(port, path, json.loads(body_of(number))))


def search_ms(corpus: Corpus, depth: int) -> tuple[float, float, float]:
    """Median times of our retrieval and of faiss itself for the same queries, and recall against an exact search."""
    retriever = load_retriever(corpus.release_dir, corpus.manifest, threads=1)
    raw = faiss.read_index(str(corpus.release_dir / corpus.manifest.retrieval.index))
    queries = _queries(corpus, raw)
    ours = p50_ms(lambda number: retriever.search(queries[number : number + 1], depth, ()), SEARCHES)
    theirs = p50_ms(lambda number: raw.search(queries[number : number + 1], depth), SEARCHES)
    return ours, theirs, round(recall(raw, _exact(raw), queries, depth), 4)


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
