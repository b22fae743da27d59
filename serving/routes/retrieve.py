"""`POST /v1/retrieve`: the Pins nearest to a user, as the index orders them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.release.manifest import ANY_SURFACE
from serving.answering import read_user
from serving.answers import (
    ERRORS,
    MAX_CANDIDATES,
    AssignmentAnswer,
    Body,
    DegradedAnswer,
    EntityId,
    Origin,
    Surface,
    UserAnswer,
    check_surface,
    degraded_part,
    json_answer,
    origin,
    split_part,
    user_status,
)
from serving.asking import Ids
from serving.deadlines import Timely
from serving.recommender import Candidates, Source, all_missing
from serving.state import AnsweredBy

router = APIRouter(tags=["retrieval"])


class RetrieveRequest(Body):
    """For whom, and how many Pins."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": 712, "k": 100}]})

    user_id: EntityId
    k: Annotated[int, Field(ge=1, le=MAX_CANDIDATES)] = 100
    surface: Surface | None = None
    """Whose popular Pins are answered where the user has no vector; those of all surfaces when absent."""
    exclude_pins: Annotated[Ids, Field(default_factory=list, max_length=MAX_CANDIDATES)]
    """Pins that must not be answered."""


class RetrievedPin(BaseModel):
    """One Pin of the index."""

    pin_id: int | str
    score: float | None
    """Inner product of the query vector and the Pin's, its popularity included; null for a popular Pin."""


class RetrieveAnswer(Origin):
    """Pins, nearest first."""

    split: AssignmentAnswer | None
    """The running A/B split and the user's arm; null without one."""
    user: UserAnswer
    degraded: DegradedAnswer | None
    """Null for an answer with everything in it."""
    source: Source
    """`retrieval`; `popular` for a user without any present view, or whose features could not be read."""
    cold_start: bool
    """Whether no user view knows the user."""
    pins: list[RetrievedPin]


# Feast's online read blocks, so this is a plain `def` and runs in the thread pool.
@router.post("/v1/retrieve", response_model=RetrieveAnswer, responses=ERRORS)
def retrieve_pins(request: RetrieveRequest, by: AnsweredBy, deadline: Timely) -> Response:
    """Answer the `k` Pins with the highest inner product with the user's query vector."""
    key = by.choice.live.ids.key("user", request.user_id, "user_id")
    recommender, assignment = by.choice.of(key)
    if request.surface is not None:
        check_surface(recommender.release, request.surface)
    now, ids = recommender.clock(), recommender.ids
    exclude = ids.keys("pin", request.exclude_pins, "exclude_pins")
    surface = request.surface or ANY_SURFACE
    user, degraded = read_user(recommender, key, now, deadline)
    if user is None:
        found = recommender.popular(surface, request.k, exclude)
    else:
        found = recommender.candidates(user, surface, request.k, exclude)
    by.watch.degraded(degraded)
    return json_answer(
        origin(recommender.release, now)
        | {
            "split": split_part(assignment),
            "user": {"user_id": request.user_id, "status": user_status(user)},
            "degraded": degraded_part(degraded),
            "source": found.source,
            "cold_start": user is not None and all_missing(user),
            "pins": _pins(ids.shown_pins(found.pin_ids[: request.k]), found),
        }
    )


def _pins(shown: list[int | str], found: Candidates) -> list[dict[str, Any]]:
    scores = [None] * len(shown) if found.scores is None else found.scores[: len(shown)].tolist()
    return [{"pin_id": pin, "score": score} for pin, score in zip(shown, scores, strict=True)]
