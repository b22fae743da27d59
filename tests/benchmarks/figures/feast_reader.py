"""A stranger's process: reads a feature service with Feast alone, and writes what it got and how long it took.

Run as a file, `python feast_reader.py REPO SERVICE KEYS OUT REPEATS`, with `KEYS` a parquet file of entity rows.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(repo: str, service_name: str, keys: str, out: str, repeats: int) -> None:
    """Time Feast's two reads and keep the values of their last repetition."""
    started = time.perf_counter()
    import pyarrow.parquet as pq
    from feast import FeatureStore

    store = FeatureStore(repo_path=repo)
    service = store.get_feature_service(service_name)
    seconds: dict[str, list[float]] = {"open": [time.perf_counter() - started]}
    entities = pq.read_table(keys)
    joined = [name for name in entities.column_names if name != "event_timestamp"]
    rows = entities.select(joined).to_pylist()
    reads: dict[str, Callable[[], Any]] = {
        "get_online_features": lambda: store.get_online_features(service, rows, full_feature_names=True).to_arrow(),
        "get_historical_features": lambda: store.get_historical_features(
            entities.to_pandas(), service, full_feature_names=True
        ).to_arrow(),
    }
    folder = Path(out)
    for call, read in reads.items():
        seconds[call] = []
        for _ in range(repeats):
            began = time.perf_counter()
            table = read()
            seconds[call].append(time.perf_counter() - began)
        pq.write_table(table, folder / f"{call}.parquet")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (folder / "seconds.json").write_text(json.dumps({"seconds": seconds, "peak_mb": peak_mb}))


if __name__ == "__main__":
    repo, service_name, keys, out, repeats = sys.argv[1:]
    main(repo, service_name, keys, out, int(repeats))
