"""`POST /v1/rank`: order given Pins for a user on a surface."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from serving.answers import (
    ERRORS,
    MAX_CANDIDATES,
    AssignmentAnswer,
    Body,
    EntityKey,
    RankedPin,
    RankingAnswer,
    UserAnswer,
    check_surface,
)
from serving.recommender import without
from serving.shadow import Answered
from serving.state import Chosen, Shadowed, Watched

router = APIRouter(tags=["ranking"])


class RankRequest(Body):
    """Who would see the Pins, where, and which."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": 712, "surface": "1", "pin_ids": [3, 14, 15]}]}
    )

    user_id: EntityKey
    surface: str
    pin_ids: Annotated[list[EntityKey], Field(min_length=1, max_length=MAX_CANDIDATES)]
    """Pins to rank; a repeated one is ranked once."""


class RankAnswer(RankingAnswer):
    """All known Pins of the request, best first."""

    missing: list[int]
    """Pins that no Pin view knows; they are not ranked."""


# Feast's online read blocks, so this is a plain `def` and runs in the thread pool.
@router.post("/v1/rank", responses=ERRORS)
def rank(request: RankRequest, choice: Chosen, shadow: Shadowed, watch: Watched) -> RankAnswer:
    """Rank Pins by pctr, highest first; ties keep request order."""
    recommender, assignment = choice.of(request.user_id)
    release = recommender.release
    check_surface(release, request.surface)
    now = recommender.clock()
    user = recommender.user(request.user_id, now)
    ranked = recommender.rank(user, without(request.pin_ids, ()), request.surface, now)
    if shadow is not None:
        shadow.offer(
            Answered(
                release=release.manifest.release,
                user_id=request.user_id,
                surface=request.surface,
                now=now,
                k=len(request.pin_ids),
                candidates=tuple(request.pin_ids),
                exclude=(),
                pctr=ranked.scores(),
            )
        )
    watch.ranked(
        recommender,
        assignment,
        user,
        ranked,
        user_id=request.user_id,
        surface=request.surface,
        as_of=now,
        k=len(ranked.pin_ids),
        source="request",
    )
    return RankAnswer(
        release=release.manifest.release,
        embeddings=release.embeddings,
        split=AssignmentAnswer.of(assignment),
        as_of=now,
        user=UserAnswer.of(request.user_id, user),
        ranked=RankedPin.list_of(ranked),
        missing=ranked.unknown,
    )
