"""The application factory: `uvicorn --factory serving.app:create_app`."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from serving.admission import Admission
from serving.bodies import BodyLimit, JsonBodies
from serving.errors import install_error_handlers
from serving.follower import Follower
from serving.logs import configure_logging
from serving.metrics import Metrics
from serving.monitoring.watch import Watch
from serving.pushes import Pushes
from serving.routes import features, health, metrics, push, rank, recommend, releases, split
from serving.settings import Settings

DESCRIPTION = "Ranked Pins and online features, every answer from one release. Every error has the same JSON form."


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    follower: Follower = app.state.follower
    # Threads share one interpreter: more of them answer no faster, and keep a release that is being loaded waiting.
    current_default_thread_limiter().total_tokens = app.state.settings.concurrency
    await run_in_threadpool(follower.start)
    # What is loaded at the start stays: collections need not look at it. Releases that follow are not frozen, and hold
    # no cycles, so that each is freed with its last request.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        await run_in_threadpool(follower.stop)
    # What start-up froze can be collected again, so that extension modules end without leak warnings.
    gc.unfreeze()


def create_app(settings: Settings | None = None) -> FastAPI:
    """A server that follows the live release; without settings they come from the environment
    (`HEADWATER_RUN=runs/demo`).

    A release that fails its checks does not stop the process: the one before keeps answering, and where there is none
    `/readyz` and every other route answer 503 with the reason, until a release can be loaded.

    Raises:
        ValueError: The token of the write routes is too short or cannot be read.
    """
    settings = settings or Settings()  # type: ignore[call-arg]  # `run` comes from the environment
    configure_logging(settings.log_level)
    app = FastAPI(title="Headwater", version="1", description=DESCRIPTION, lifespan=_lifespan)
    app.state.settings = settings
    app.state.token = settings.write_token()
    app.state.metrics = Metrics()
    app.state.follower = Follower(settings, app.state.metrics)
    app.state.pushes = Pushes(settings)
    app.state.watch = Watch()
    install_error_handlers(app)
    app.add_middleware(JsonBodies)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    capacity = settings.concurrency + settings.queue
    app.add_middleware(Admission, capacity=capacity, metrics=app.state.metrics)
    for module in (recommend, rank, features, push, releases, split, health, metrics):
        app.include_router(module.router)
    return app
