"""The application factory: `uvicorn --factory serving.app:create_app`."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from serving.admission import Admission
from serving.bodies import BodyLimit, JsonBodies
from serving.errors import install_error_handlers
from serving.examples import with_answers
from serving.follower import Follower
from serving.logs import configure_logging
from serving.metrics import Metrics
from serving.monitoring.middleware import Monitoring
from serving.monitoring.routes import RouteNames
from serving.monitoring.tracing import Tracing, configured_tracing
from serving.monitoring.watch import Watch
from serving.pushes import Pushes
from serving.request_log.log import LogConfig, RequestLog
from serving.routes import features, health, metrics, page, push, rank, recommend, releases, retrieve, similar, split
from serving.settings import Settings

DESCRIPTION = "Ranked Pins and online features, every answer from one release. Every error has the same JSON form."


class App(FastAPI):
    """FastAPI's application, with examples of every answer in its document."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return with_answers(super().openapi())


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    follower: Follower = app.state.follower
    # Threads share one interpreter: more of them answer no faster, and keep a release that is being loaded waiting.
    current_default_thread_limiter().total_tokens = app.state.settings.concurrency
    await run_in_threadpool(follower.start)
    app.state.watch.start()
    await run_in_threadpool(app.state.metrics.start)
    # What is loaded at the start stays: collections need not look at it. Releases that follow are not frozen, and hold
    # no cycles, so that each is freed with its last request.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        await run_in_threadpool(follower.stop)
        await run_in_threadpool(app.state.watch.stop)
        await run_in_threadpool(app.state.metrics.stop)
        if app.state.tracing is not None:
            await run_in_threadpool(app.state.tracing.stop)
    # What start-up froze can be collected again, so that extension modules end without leak warnings.
    gc.unfreeze()


def create_app(settings: Settings | None = None, tracing: Tracing | None = None) -> FastAPI:
    """A server that follows the live release; without settings they come from the environment
    (`HEADWATER_RUN=runs/demo`).

    A release that fails its checks does not stop the process: the one before keeps answering, and where there is none
    `/readyz` and every other route answer 503 with the reason, until a release can be loaded.

    Args:
        tracing: Where spans go; as OpenTelemetry's environment variables say when not given.

    Raises:
        ValueError: The token of the write routes is too short or cannot be read, or traces are asked for without the
            packages that make them.
    """
    settings = settings or Settings()  # type: ignore[call-arg]  # `run` comes from the environment
    configure_logging(settings.log_level, settings.log_format)
    app = App(title="Headwater", version="1", description=DESCRIPTION, lifespan=_lifespan)
    app.state.settings = settings
    app.state.token = settings.write_token()
    app.state.metrics = Metrics(settings.metrics_dir)
    app.state.follower = Follower(settings, app.state.metrics)
    app.state.pushes = Pushes(settings)
    app.state.watch = Watch(app.state.metrics, _request_log(settings, app.state.metrics))
    app.state.tracing = tracing or configured_tracing()
    install_error_handlers(app)
    app.add_middleware(JsonBodies)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    capacity = settings.concurrency + settings.queue
    app.add_middleware(Admission, capacity=capacity, metrics=app.state.metrics)
    modules = (recommend, retrieve, rank, similar, features, push, releases, split, health, metrics, page)
    for module in modules:
        app.include_router(module.router)
    paths = (route.path for module in modules for route in module.router.routes if isinstance(route, Route))
    app.add_middleware(
        Monitoring,
        routes=RouteNames(paths),
        metrics=app.state.metrics,
        tracing=app.state.tracing,
        log_requests=settings.log_requests,
    )
    return app


def _request_log(settings: Settings, metrics: Metrics) -> RequestLog | None:
    if settings.request_log == 0.0:
        return None
    config = LogConfig(
        folder=settings.request_log_path,
        share=settings.request_log,
        capacity=settings.request_log_queue,
        roll_rows=settings.request_log_rows,
        roll_seconds=settings.request_log_seconds,
    )
    return RequestLog(config, metrics)
