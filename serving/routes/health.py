"""`GET /healthz` and `GET /readyz`: is the process alive, and may it get traffic."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from serving.errors import ErrorAnswer, NotReadyError
from serving.state import WARM_UP_USER, Ready

NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": ErrorAnswer, "description": "The reason"}}

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str = "alive"


class ReadyAnswer(BaseModel):
    """A release is loaded and the online store answers."""

    status: str = "ready"
    release: str
    embeddings: list[str]
    num_pins: int
    """Pins in the index."""
    as_of: datetime
    """Moment against which TTLs are counted."""


@router.get("/healthz")
async def healthz() -> Alive:
    """Whether the process is alive."""
    return Alive()


# Feast's online read blocks, so this is a plain `def` and runs in the thread pool.
@router.get("/readyz", responses=NOT_READY)
def readyz(recommender: Ready) -> ReadyAnswer:
    """Whether a release is loaded and the online store answers."""
    now = recommender.clock()
    try:
        recommender.user(WARM_UP_USER, now)
    except Exception as error:
        raise NotReadyError(f"the online store must answer (got {type(error).__name__}: {error})") from error
    release = recommender.release
    return ReadyAnswer(
        release=release.manifest.release,
        embeddings=release.embeddings,
        num_pins=release.manifest.retrieval.num_pins,
        as_of=now,
    )
