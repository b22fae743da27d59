"""One route at a constant rate of arrivals: latencies from the intended sending, and the highest rate that it keeps up.

Percentiles are of all latencies, none of which is rounded into a bucket.
"""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.serving_load.client import FAILED, LESS, Outcomes, Plan, Request, load_outcomes, save_plan
from tests.benchmarks.serving_load.server import ROOT

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
SLOWEST_P99_MS = 50.0
"""Latency that the highest rate must keep at its 99th percentile."""
STEP = 1.25
"""From one rate to the next higher one."""
WARM_UP_S = 1.5
_PATIENCE_S = 120.0
_STAGE = re.compile(r'^headwater_\w*stage_seconds_sum\{.*stage="(\w+)".*\} (\S+)$')
OWN_STAGES = ("own", "other", "server")
"""Names under which the server may count what is neither index, store nor model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AtRate:
    """What one rate gave."""

    rate: float
    requests: int
    failed: int
    degraded: int
    latencies_ms: dict[str, float]
    """By percentile, `max` among them."""
    own_share: float | None
    """Share of the server's time outside index, store and model."""
    cpu_ms: float | None = None
    """CPU of the server's processes for one request, those of the store and of the client not among them."""

    @property
    def p99_ms(self) -> float:
        """99th percentile."""
        return self.latencies_ms["p99"]

    @property
    def kept_up(self) -> bool:
        """Whether every request was answered whole, and nearly all of them soon."""
        return self.failed == self.degraded == 0 and self.p99_ms <= SLOWEST_P99_MS


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How a route is asked."""

    port: int
    folder: Path
    cpu_s: Callable[[], float]
    """Seconds of CPU that the server has taken so far."""
    say: Callable[[str], object] = str
    """Told what each rate gave."""
    connections: int = 64

    def at(self, rate: float, seconds: float, requests: Sequence[Request]) -> AtRate:
        """Ask at a rate, after a moment at the same rate that is not counted."""
        self._send(rate, WARM_UP_S, requests)
        before, cpu_s = stage_seconds(self.port), self.cpu_s()
        outcomes = self._send(rate, seconds, requests)
        cpu_ms = 1000 * (self.cpu_s() - cpu_s) / len(outcomes.due)
        found = found_at(rate, outcomes, _share(before, stage_seconds(self.port)), round(cpu_ms, 2))
        self.say(f"  {rate:g} requests/s for {seconds:g} s: {_told(found)}")
        return found

    def _send(self, rate: float, seconds: float, requests: Sequence[Request]) -> Outcomes:
        """From a process of its own."""
        plan = Plan(port=self.port, rate=rate, seconds=seconds, connections=self.connections, requests=tuple(requests))
        plan_file, out = self.folder / "plan.json", self.folder / "outcomes.npz"
        save_plan(plan, plan_file)
        command = [sys.executable, "-m", "tests.benchmarks.serving_load.client", str(plan_file), str(out)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=seconds + _PATIENCE_S)
        return load_outcomes(out)


def found_at(rate: float, outcomes: Outcomes, own_share: float | None = None, cpu_ms: float | None = None) -> AtRate:
    """Figures of the outcomes of one rate."""
    latencies = outcomes.latency_ms
    found = {f"p{each:g}": round(float(np.percentile(latencies, each)), 2) for each in PERCENTILES}
    return AtRate(
        rate=rate,
        requests=len(latencies),
        failed=outcomes.count(FAILED),
        degraded=outcomes.count(LESS),
        latencies_ms=found | {"max": round(float(latencies.max()), 2)},
        own_share=own_share,
        cpu_ms=cpu_ms,
    )


def _told(found: AtRate) -> str:
    latencies = ", ".join(f"{name} {found.latencies_ms[name]}" for name in ("p50", "p99", "max"))
    counts = f"{found.failed} failed, {found.degraded} degraded"
    return f"{latencies} ms, {counts}, own {found.own_share}, CPU {found.cpu_ms} ms a request"


def highest_rate(at: Callable[[float], AtRate], start: float, most: float = 10_000.0) -> float:
    """Highest rate of a rising series that is kept up; 0 when not even the first is."""
    kept, rate = 0.0, start
    while rate <= most and at(rate).kept_up:
        kept, rate = rate, rate * STEP
    return round(kept, 1)


def stage_seconds(port: int) -> dict[str, float]:
    """Seconds that each stage took so far, by the server's own count."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    found: dict[str, float] = {}
    for line in lines:
        if match := _STAGE.match(line):
            found[match[1]] = found.get(match[1], 0.0) + float(match[2])
    return found


def _share(before: dict[str, float], after: dict[str, float]) -> float | None:
    spent = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    total = sum(spent.values())
    if total <= 0:
        return None
    return round(sum(spent.get(name, 0.0) for name in OWN_STAGES) / total, 3)
