"""OpenTelemetry traces: a span per request and one per stage of it, where an exporter is configured.

A request costs nothing more until it has ended: its spans are made from the record, and exported in batches by a thread
of OpenTelemetry's own. Without an exporter none of it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from serving.monitoring.request import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

EXPORTER_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's own: one of them says where traces go."""
DISABLED_VARIABLE: Final = "OTEL_SDK_DISABLED"
FAILED = 500


class TracingError(ValueError):
    """Traces are asked for and cannot be made."""


class Tracing:
    """Makes spans of requests that have ended."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("headwater.serving")
        self._propagator = TraceContextTextMapPropagator()

    def export(self, record: RequestRecord, headers: Mapping[str, str]) -> None:
        """Hand the spans of one request to the exporter; they continue the trace that `traceparent` names."""
        from opentelemetry import trace

        parent = self._propagator.extract(dict(headers.items()))
        offset = record.started_ns - record.start_ns
        span = self._tracer.start_span(
            f"{record.method} {record.route or 'none'}",
            context=parent,
            kind=trace.SpanKind.SERVER,
            attributes=_attributes(record),
            start_time=record.started_ns,
        )
        within = trace.set_span_in_context(span, parent)
        for each in record.stages:
            child = self._tracer.start_span(each.name, context=within, start_time=each.start_ns + offset)
            child.end(each.end_ns + offset)
        if record.status >= FAILED:
            span.set_status(trace.StatusCode.ERROR)
        span.end(record.end_ns + offset)

    def stop(self) -> None:
        """Export what is left, then end."""
        self._provider.shutdown()


def configured_tracing() -> Tracing | None:
    """Tracing as OpenTelemetry's environment variables configure it; none where they name no exporter.

    Raises:
        TracingError: They do, and the packages of the extra `tracing` are not installed.
    """
    if not any(os.environ.get(name) for name in EXPORTER_VARIABLES):
        return None
    if os.environ.get(DISABLED_VARIABLE, "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise TracingError(
            f"{' or '.join(EXPORTER_VARIABLES)} asks for traces, which need {error.name} (it is not installed); "
            "pip install 'headwater[tracing]' or unset the variable"
        ) from error
    # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before the default.
    provider = TracerProvider(resource=Resource.create({"service.name": "headwater"} | _service_name()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _service_name() -> dict[str, str]:
    name = os.environ.get("OTEL_SERVICE_NAME")
    return {"service.name": name} if name else {}


def _attributes(record: RequestRecord) -> dict[str, Any]:
    found = {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "headwater.request_id": record.request_id,
        "headwater.release": record.release,
        "headwater.arm": record.arm,
        "headwater.degraded": record.degraded,
    }
    return {name: value for name, value in found.items() if value}
