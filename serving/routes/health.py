"""`GET /healthz` and `GET /readyz`: is the process alive, and may it get traffic."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from serving.deadlines import Deadline
from serving.errors import ErrorAnswer, NotReadyError
from serving.loading import WARM_UP_USER
from serving.state import Following, Ready

PATIENCE_MS = 1000
"""For which `/readyz` waits for the online store."""
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
    shadow: str | None
    """Release that scores a share of the requests without answering."""
    split: str | None
    """Release that answers the treatment of the running A/B split; null also while it cannot be loaded."""
    warnings: list[str]
    """What keeps this process from following the catalogue; it answers from `release` all the same."""


@router.get("/healthz")
async def healthz() -> Alive:
    """Whether the process is alive."""
    return Alive()


# Feast's online read blocks, so this is a plain `def` and runs in the thread pool.
@router.get("/readyz", responses=NOT_READY)
def readyz(recommender: Ready, follower: Following) -> ReadyAnswer:
    """Whether a release is loaded and the online store answers."""
    now = recommender.clock()
    try:
        with Deadline.after_ms(PATIENCE_MS).reads():
            recommender.user(WARM_UP_USER, now)
    except Exception as error:
        raise NotReadyError(f"the online store must answer (got {type(error).__name__}: {error})") from error
    release, shadow = recommender.release, follower.shadow
    split = follower.split
    refusals = (follower.refusal, follower.shadow_refusal, follower.split_refusal)
    return ReadyAnswer(
        release=release.manifest.release,
        embeddings=release.embeddings,
        num_pins=release.manifest.retrieval.num_pins,
        as_of=now,
        shadow=shadow.release if shadow is not None else None,
        split=split.recommender.release.manifest.release if split is not None and split.recommender else None,
        warnings=[each.reason for each in refusals if each is not None],
    )
