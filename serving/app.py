"""The application factory: `uvicorn --factory serving.app:create_app`."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from serving.bodies import BodyLimit, JsonBodies
from serving.errors import install_error_handlers
from serving.routes import features, health, rank, recommend
from serving.settings import Settings
from serving.state import try_to_load

DESCRIPTION = "Ranked Pins and online features, answered from one release. Every error has the same JSON form."


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.recommender = await run_in_threadpool(try_to_load, app.state.settings)
    yield
    # What start-up froze can be collected again, so that extension modules end without leak warnings.
    gc.unfreeze()


def create_app(settings: Settings | None = None) -> FastAPI:
    """A server for one release; without settings they come from the environment (`HEADWATER_RUN=runs/demo`).

    A release that fails its checks does not stop the process: `/readyz` and every other route answer 503 with the
    reason, so that an orchestrator keeps the old server.
    """
    settings = settings or Settings()  # type: ignore[call-arg]  # `run` comes from the environment
    app = FastAPI(title="Headwater", version="1", description=DESCRIPTION, lifespan=_lifespan)
    app.state.settings = settings
    install_error_handlers(app)
    app.add_middleware(JsonBodies)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    for module in (recommend, rank, features, health):
        app.include_router(module.router)
    return app
