"""What is known of each request: its id, its metrics, its log line and its trace."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.app import create_app
from serving.logs import JsonLines, OfRequest, fields_of
from serving.monitoring.request import RequestRecord, begin, current, request_id, stage
from serving.monitoring.routes import RouteNames
from serving.monitoring.tracing import EXPORTER_VARIABLES, Tracing, configured_tracing
from serving.settings import Settings
from tests.imports import ROOT
from tests.serving.tiny_run import NOW

ASKED = {"user_id": 1, "surface": "1", "k": 3}


def series(client: TestClient, name: str) -> dict[str, float]:
    """Values of a metric by labels."""
    lines = client.get("/metrics").text.splitlines()
    found = (line.removeprefix(name).rpartition(" ") for line in lines if line.startswith(f"{name}{{"))
    return {labels: float(value) for labels, _, value in found}


def of(tiny_run: Path, **changes: object) -> Settings:
    given = {"run": tiny_run, "release_dir": tiny_run / "releases" / "tiny-1", "as_of": NOW, "threads": 1}
    return Settings(**(given | changes))  # type: ignore[arg-type]


def test_request_id_is_taken_over_or_made(client: TestClient) -> None:
    assert client.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    made = [client.post("/v1/recommend", json=ASKED).headers["x-request-id"] for _ in range(2)]
    assert len(set(made)) == 2
    assert client.get("/nowhere").headers["x-request-id"]


@pytest.mark.parametrize("given", ["", "two words", "a\nb", "x" * 129, "ümlaut", '"}', "-begins-with-a-dash"])
def test_request_id_that_could_forge_a_log_line_is_replaced(given: str) -> None:
    assert len(request_id(given)) == 32
    assert request_id("Root=1-67891233-abcdef012345") == "Root=1-67891233-abcdef012345"


def test_failed_request_has_its_id_and_counts_as_500(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(create_app(of(tiny_run)), raise_server_exceptions=False) as client:
        monkeypatch.setattr("serving.routes.health.Alive", None)
        failed = client.get("/healthz", headers={"x-request-id": "r-500"})
        assert (failed.status_code, failed.headers["x-request-id"]) == (500, "r-500")
        assert series(client, "headwater_requests_total")['{route="/healthz",status="500"}'] == 1.0


def test_metrics_tell_route_stage_release_statuses_ages_and_scores(tiny_run: Path) -> None:
    with TestClient(create_app(of(tiny_run))) as client:
        client.post("/v1/recommend", json=ASKED)
        client.post("/v1/recommend", json=ASKED | {"user_id": 2})
        client.post("/v1/rank", json={"user_id": 1, "surface": "8", "pin_ids": [101]})
        client.get("/v1/unheard/of")
        requests = series(client, "headwater_requests_total")
        assert requests['{route="/v1/recommend",status="200"}'] == 2.0
        assert requests['{route="/v1/rank",status="422"}'] == 1.0
        assert requests['{route="none",status="404"}'] == 1.0
        stages = series(client, "headwater_stage_seconds_count")
        assert stages['{release="tiny-1",stage="store"}'] == stages['{release="tiny-1",stage="server"}'] >= 2.0
        assert stages['{release="tiny-1",stage="index"}'] == 1.0
        rows = series(client, "headwater_feature_rows_total")
        assert rows['{status="present",view="user_activity"}'] == 1.0
        assert rows['{status="outside_max_age",view="user_activity"}'] == 1.0
        assert rows['{status="missing",view="pin_activity"}'] >= 1.0
        ages = series(client, "headwater_feature_age_seconds_sum")
        assert ages['{view="user_activity"}'] == 3600.0 * (1 + 100)
        scores = series(client, "headwater_score_count")
        assert scores['{release="tiny-1",task="pctr"}'] == scores['{release="tiny-1",task="pcvr"}'] == 6.0
        assert series(client, "headwater_index_pins") == {'{release="tiny-1"}': 6.0}


def test_every_route_of_the_app_has_a_name_and_no_other_path_does(tiny_run: Path) -> None:
    app = create_app(of(tiny_run))
    paths = list(app.openapi()["paths"])
    names = RouteNames(paths)
    assert names.of("/v1/releases/r-1/promote") == "/v1/releases/{id}/promote"
    assert names.of("/v1/releases/rollback") == "/v1/releases/rollback"
    assert [names.of(path) for path in paths if "{" not in path] == [path for path in paths if "{" not in path]
    assert names.of("/v1/releases/a/b/promote") == names.of("/v1/anything") == ""


def test_log_lines_say_the_request_and_its_fields_as_json(tiny_run: Path) -> None:
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Kept()
    handler.addFilter(OfRequest())
    handler.setFormatter(JsonLines())
    logging.getLogger("serving").addHandler(handler)
    try:
        with TestClient(create_app(of(tiny_run, log_requests=True))) as client:
            client.post("/v1/recommend", json=ASKED, headers={"x-request-id": "r-7"})
            client.get("/metrics")
    finally:
        logging.getLogger("serving").removeHandler(handler)
    (line,) = (found for text in lines if (found := json.loads(text)).get("event") == "request")
    assert line | {"time": "", "ms": "", "message": ""} == {
        "time": "",
        "level": "INFO",
        "logger": "serving.requests",
        "request_id": "r-7",
        "event": "request",
        "method": "POST",
        "route": "/v1/recommend",
        "status": "200",
        "ms": "",
        "release": "tiny-1",
        "arm": "none",
        "degraded": "none",
        "message": "",
    }


def test_reason_of_a_log_line_is_all_that_follows() -> None:
    assert fields_of("event=failed n=3 reason=OSError: a=b c") == {
        "event": "failed",
        "n": "3",
        "reason": "OSError: a=b c",
    }


def test_stage_outside_of_a_request_goes_nowhere() -> None:
    assert current() is None
    with stage("store"):
        pass


def test_trace_has_a_span_per_request_and_stage_and_continues_the_callers(tiny_run: Path) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with TestClient(create_app(of(tiny_run), Tracing(provider))) as client:
        client.post("/v1/recommend", json=ASKED, headers={"traceparent": parent, "x-request-id": "r-8"})
        spans = exporter.get_finished_spans()
    (whole,) = (span for span in spans if span.name == "POST /v1/recommend")
    assert whole.attributes is not None
    assert whole.attributes["http.response.status_code"] == 200
    assert whole.attributes["headwater.release"] == "tiny-1"
    assert whole.attributes["headwater.request_id"] == "r-8"
    assert whole.parent is not None
    assert f"{whole.parent.span_id:016x}" == "00f067aa0ba902b7"
    stages = [span for span in spans if span is not whole]
    assert {span.name for span in stages} >= {"store", "index", "model"}
    for span in stages:
        assert span.context.trace_id == whole.context.trace_id == int("4bf92f3577b34da6a3ce929d0e0e4736", 16)
        assert span.parent is not None
        assert span.parent.span_id == whole.context.span_id
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time  # type: ignore[operator]


def test_tracing_is_off_unless_an_exporter_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXPORTER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert configured_tracing() is None
    monkeypatch.setenv(EXPORTER_VARIABLES[1], "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert configured_tracing() is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    made = configured_tracing()
    assert made is not None
    made.stop()


def test_without_an_exporter_nothing_that_makes_spans_is_loaded() -> None:
    """FastAPI itself imports OpenTelemetry's interfaces where they are installed."""
    parts = ("opentelemetry.sdk", "opentelemetry.exporter")
    code = f"import sys, serving.app; print([name for name in sys.modules if name.startswith({parts})])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_request_in_hand_is_the_one_that_was_begun() -> None:
    begin(RequestRecord(request_id="r-9"))
    found = current()
    assert found is not None
    assert found.request_id == "r-9"
    begin(None)
    assert current() is None
