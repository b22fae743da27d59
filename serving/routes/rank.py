"""`POST /v1/rank`: order given Pins for a user on a surface."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from serving.answering import Question, recommend
from serving.answers import ERRORS, MAX_CANDIDATES, RankingAnswer, check_surface, json_answer, ranking
from serving.asking import Ids, RankingRequest
from serving.deadlines import Timely
from serving.examples import RANKING_TERMS
from serving.shadow import Answered
from serving.state import AnsweredBy

router = APIRouter(tags=["ranking"])


class RankRequest(RankingRequest):
    """Who would see the Pins, where, and which."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": 712, "surface": "1", "pin_ids": [3, 14, 15]},
                {"user_id": 712, "surface": "1", "pin_ids": [3, 14, 15], **RANKING_TERMS},
            ]
        }
    )

    pin_ids: Annotated[Ids, Field(min_length=1, max_length=MAX_CANDIDATES)]
    """Pins to rank; a repeated one is ranked once."""


class RankAnswer(RankingAnswer):
    """All known Pins of the request, best first."""

    filtered: int
    """Pins that a filter of the request took out."""
    missing: list[int | str]
    """Pins that no Pin view knows; they are not ranked."""


# Feast's online read blocks, so this is a plain `def` and runs in the thread pool.
@router.post("/v1/rank", response_model=RankAnswer, responses=ERRORS)
def rank_pins(request: RankRequest, by: AnsweredBy, deadline: Timely) -> Response:
    """Rank Pins by score, highest first; ties keep request order."""
    user_id = by.choice.live.ids.key("user", request.user_id, "user_id")
    recommender, assignment = by.choice.of(user_id)
    check_surface(recommender.release, request.surface)
    now, ids = recommender.clock(), recommender.ids
    candidates = tuple(ids.keys("pin", request.pin_ids, "pin_ids"))
    question = Question(
        user_id=user_id,
        surface=request.surface,
        k=len(request.pin_ids),
        candidates=candidates,
        terms=request.terms(recommender),
    )
    found = recommend(recommender, question, now, deadline)
    if found.degraded is None and (shadow := by.shadow()) is not None:
        shadow.offer(Answered.of(recommender.release, question, now, found.ranked.pctr_by_pin()))
    by.watch.answered(recommender, assignment, question, found, now)
    asked = dict(zip(candidates, request.pin_ids, strict=True))
    missing = [asked[key] for key in found.ranked.unknown.tolist()]
    return json_answer(
        ranking(recommender, assignment, found, request.user_id, now)
        | {"filtered": found.ranked.num_filtered, "missing": missing}
    )
