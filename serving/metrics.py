"""What an operator watches: releases loaded and refused, requests refused, and how the shadow release differs."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Metrics of one server process, in Prometheus's text format."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._live: str | None = None
        self.loads = Counter(
            "headwater_release_loads", "Releases loaded or refused", ["outcome"], registry=self._registry
        )
        self.live = Gauge(
            "headwater_release_live",
            "1 for the release that answers, 0 for those before it",
            ["release"],
            registry=self._registry,
        )
        self.polls = Counter(
            "headwater_catalogue_polls", "Looks at which release is live", ["outcome"], registry=self._registry
        )
        self.refused = Counter(
            "headwater_requests_refused", "Requests answered 429 because too many waited", registry=self._registry
        )
        self.shadowed = Counter(
            "headwater_shadow_requests", "Requests offered to the shadow release", ["outcome"], registry=self._registry
        )
        self.score_difference = Histogram(
            "headwater_shadow_score_difference",
            "Mean absolute difference of pctr on the Pins that both releases answered",
            registry=self._registry,
            buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        )
        self.overlap = Histogram(
            "headwater_shadow_overlap",
            "Share of the answered Pins that the shadow release answers too",
            registry=self._registry,
            buckets=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        )

    def now_live(self, release: str) -> None:
        """Say which release answers from now on."""
        if self._live is not None:
            self.live.labels(self._live).set(0)
        self._live = release
        self.live.labels(release).set(1)

    def text(self) -> bytes:
        """All metrics, as `/metrics` shows them."""
        return bytes(generate_latest(self._registry))
