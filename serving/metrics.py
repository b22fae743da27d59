"""What an operator watches, in Prometheus's text format: requests, stages, features, scores, releases and the logs.

With a folder that the processes of a server share, as `headwater serve --workers` makes one, each answers for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values

from serving.monitoring.request import RequestRecord
from serving.monitoring.shared_metrics import GaugeMode, SharedMetrics

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5)
AGES_S = tuple(3600.0 * hours for hours in (0.25, 1, 3, 6, 12, 24, 36, 48, 72, 168, 720))
PROBABILITIES = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DIFFERENCES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
# Importing Feast has prometheus_client keep values in files that all registries of a process share by name.
values.ValueClass = values.MutexValue

OWN_STAGE = "server"
"""What is left of a request's time: neither store, nor index, nor model."""


class BulkHistogram(Histogram):
    """A histogram that takes many values at the cost of a few."""

    def observe_many(self, values: npt.NDArray[Any]) -> None:
        """Count each value, as `observe` would one by one."""
        if not len(values):
            return
        counts = np.bincount(np.searchsorted(np.array(self._upper_bounds), values))
        for place in counts.nonzero()[0].tolist():
            self._buckets[place].inc(int(counts[place]))
        self._sum.inc(float(values.sum()))


class Metrics:
    """Metrics of one server process.

    Args:
        folder: Shared with the other processes of the server; none where there is one process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._registry = CollectorRegistry()
        self._modes: dict[str, GaugeMode] = {}
        self._shared = SharedMetrics(folder, self._registry, self._modes) if folder is not None else None
        self._live: str | None = None
        self.requests = self._counter("requests", "Requests answered", "route", "status")
        self.request_seconds = self._histogram(
            "request_seconds", "Time from a request's arrival to its answer's end", SECONDS, "route", "release"
        )
        self.stage_seconds = self._histogram(
            "stage_seconds",
            "Time of a ranking request by stage: store, index, model, and server for all else",
            SECONDS,
            "stage",
            "release",
        )
        self.degraded = self._counter("degraded", "Answers that are less than they could be", "route", "reason")
        self.feature_rows = self._counter("feature_rows", "Rows that rankings asked the store for", "view", "status")
        self.feature_age = self._histogram(
            "feature_age_seconds", "Age of the rows that rankings read, outside max age or not", AGES_S, "view"
        )
        self.score = self._histogram("score", "Probabilities of answered Pins", PROBABILITIES, "task", "release")
        self.figure = self._gauge("release_figure", "What a manifest states from training", "max", "release", "figure")
        self.index_pins = self._gauge("index_pins", "Pins in the index of a release", "max", "release")
        self.split = self._counter("split_requests", "Ranking requests in an A/B split", "split", "arm")
        self.loads = self._counter("release_loads", "Releases loaded or refused", "outcome")
        self.live = self._gauge(
            "release_live", "Processes that answer from a release, 0 for those before it", "sum", "release"
        )
        self.polls = self._counter("catalogue_polls", "Looks at which release is live", "outcome")
        self.refused = self._counter("requests_refused", "Requests answered 429 because too many waited")
        self.shadowed = self._counter("shadow_requests", "Requests offered to the shadow release", "outcome")
        self.score_difference = self._histogram(
            "shadow_score_difference",
            "Mean absolute difference of pctr on the Pins that both releases answered",
            DIFFERENCES,
        )
        self.overlap = self._histogram(
            "shadow_overlap", "Share of the answered Pins that the shadow release answers too", SHARES
        )
        self.logged = self._counter("request_log_answers", "Answers written to the request log or dropped", "outcome")
        self.log_bytes = self._counter("request_log_bytes", "Bytes written to the request log")
        self.log_failures = self._counter("request_log_failures", "Files of the request log that could not be written")
        self.log_failing = self._gauge(
            "request_log_failing", "Processes whose request log cannot be written now", "sum"
        )
        self.log_queue = self._gauge("request_log_queue", "Answers that wait to be logged", "sum")
        self.watch_failures = self._counter("watch_failures", "Answers that could not be counted; the log says why")

    def now_live(self, release: str) -> None:
        """Say which release answers from now on."""
        if self._live is not None:
            self.live.labels(self._live).set(0)
        self._live = release
        self.live.labels(release).set(1)

    def loaded(self, release: str, num_pins: int, figures: Mapping[str, float]) -> None:
        """Say what a release that may answer consists of."""
        self.index_pins.labels(release).set(num_pins)
        for name, value in figures.items():
            self.figure.labels(release, name).set(value)

    def answered(self, record: RequestRecord) -> None:
        """Count a request that has ended.

        Args:
            record: With the route, or an empty one where none matches.
        """
        route = record.route or "none"
        self.requests.labels(route, str(record.status)).inc()
        seconds = (record.end_ns - record.start_ns) / 1e9
        self.request_seconds.labels(route, record.release).observe(seconds)
        if not record.stages:
            return
        spent: dict[str, float] = {}
        for each in record.stages:
            spent[each.name] = spent.get(each.name, 0.0) + (each.end_ns - each.start_ns) / 1e9
        spent[OWN_STAGE] = max(0.0, seconds - sum(spent.values()))
        for name, value in spent.items():
            self.stage_seconds.labels(name, record.release).observe(value)

    def text(self) -> bytes:
        """All metrics of all processes of the server, as `/metrics` shows them."""
        return self._shared.text() if self._shared is not None else bytes(generate_latest(self._registry))

    def start(self) -> None:
        """Begin to share the values with the other processes."""
        if self._shared is not None:
            self._shared.start()

    def stop(self) -> None:
        """Leave the last values to the other processes."""
        if self._shared is not None:
            self._shared.stop()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"headwater_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, mode: GaugeMode, *labels: str) -> Gauge:
        self._modes[f"headwater_{name}"] = mode
        return Gauge(f"headwater_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> BulkHistogram:
        return BulkHistogram(f"headwater_{name}", text, labels, registry=self._registry, buckets=buckets)
