"""One `/metrics` for all processes of a server, whichever of them is asked.

Each process writes a snapshot of its own values every second; who is asked adds those of the others to its own.
Counters and histograms of a process that has ended stay, so that no sum ever falls; what its gauges said is over with
it. `prometheus_client` has such a mode, chosen for the whole program by an environment variable that Feast sets too,
when it is imported, to a folder of its own; hence this one.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

logger = logging.getLogger(__name__)

PERIOD_S: Final = 1.0
"""Time between two snapshots of a process."""
SILENCE_S: Final = 10.0
"""Age of a snapshot from which its process counts as ended."""
GaugeMode = Literal["sum", "max"]
Sample = tuple[str, tuple[tuple[str, str], ...]]
"""A series: its name and labels."""


class SharedMetrics:
    """Values of all processes that share a folder.

    Args:
        folder: Of this server alone; made when absent.
        modes: How gauges of several processes become one, by metric.
    """

    def __init__(self, folder: Path, registry: CollectorRegistry, modes: Mapping[str, GaugeMode]) -> None:
        self._folder, self._registry, self._modes = folder, registry, modes
        self._file = folder / f"{uuid.uuid4().hex}.json"
        self._stopping = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="shared-metrics", daemon=True)

    def start(self) -> None:
        """Begin to write snapshots; the first is there when this returns."""
        self._write()
        self._thread.start()

    def stop(self) -> None:
        """Write the last one."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def text(self) -> bytes:
        """The values of all processes in Prometheus's text format."""
        return bytes(generate_latest(_Collected(self.merged())))

    def merged(self) -> list[Metric]:
        """Every metric of this process, with the values of the others added."""
        others = list(self._others())
        return [self._merge(family, others) for family in self._registry.collect()]

    def _merge(self, family: Metric, others: Iterable[tuple[bool, Mapping[Sample, float]]]) -> Metric:
        gauge, largest = family.type == "gauge", self._modes.get(family.name) == "max"
        values = dict(_values(family))
        names = {name for name, _ in values} | {f"{family.name}{end}" for end in ("", "_total", *_HISTOGRAM_ENDS)}
        for alive, theirs in others:
            if gauge and not alive:
                continue
            for sample, value in theirs.items():
                if sample[0] in names:
                    own = values.get(sample)
                    joined = value if own is None else max(own, value) if gauge and largest else own + value
                    values[sample] = joined
        found = Metric(family.name, family.documentation, family.type)
        for (name, labels), value in sorted(values.items(), key=_bucket_order):
            found.add_sample(name, dict(labels), value)
        return found

    def _others(self) -> Iterator[tuple[bool, Mapping[Sample, float]]]:
        """Per other process, whether it is alive, and its values."""
        now = time.time()
        for file in sorted(self._folder.glob("*.json")):
            if file == self._file:
                continue
            try:
                alive = now - file.stat().st_mtime < SILENCE_S
                rows = json.loads(file.read_text())
            except (OSError, ValueError) as error:
                logger.warning("event=metrics_unread file=%s reason=%r", file, error)
                continue
            yield alive, {(name, tuple((key, each) for key, each in labels)): value for name, labels, value in rows}

    def _work(self) -> None:
        while not self._stopping.wait(PERIOD_S):
            self._write()
        self._write()

    def _write(self) -> None:
        rows = [(*sample, value) for family in self._registry.collect() for sample, value in _values(family)]
        partial = self._file.with_suffix(".partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(rows))
            partial.replace(self._file)
        except OSError as error:
            if not self._failed:
                logger.error("event=metrics_not_shared folder=%s reason=%r", self._folder, error)
            self._failed = True
        else:
            self._failed = False


_HISTOGRAM_ENDS = ("_bucket", "_sum", "_count")


class _Collected:
    """What `generate_latest` asks a registry for."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """The metrics."""
        return self._families


def _values(family: Metric) -> Iterator[tuple[Sample, float]]:
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            yield (sample.name, tuple(sorted(sample.labels.items()))), float(sample.value)


def _bucket_order(item: tuple[Sample, float]) -> tuple[tuple[tuple[str, str], ...], int, str, float]:
    """Series of one histogram together, buckets by their bound, then count and sum."""
    (name, labels), _ = item
    bound = next((float(value) for key, value in labels if key == "le"), 0.0)
    return tuple(each for each in labels if each[0] != "le"), not name.endswith("_bucket"), name, bound
