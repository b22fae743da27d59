"""`POST /v1/recommend`: the best Pins for a user on a surface."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from serving.answering import Question, recommend
from serving.answers import ERRORS, MAX_CANDIDATES, RankingAnswer, check_surface, json_answer, not_present, ranking
from serving.asking import Ids, RankingRequest
from serving.deadlines import Timely
from serving.examples import RANKING_TERMS
from serving.recommender import Source, all_missing
from serving.shadow import Answered
from serving.state import AnsweredBy

MAX_K = 200
"""Most Pins that one answer holds."""

router = APIRouter(tags=["ranking"])


class RecommendRequest(RankingRequest):
    """Who asks, where, and for how many Pins."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": 712, "surface": "1", "k": 10},
                {"user_id": 712, "surface": "1", "k": 10, "exclude_pins": [3], **RANKING_TERMS},
            ]
        }
    )

    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    candidates: Annotated[Ids, Field(min_length=1, max_length=MAX_CANDIDATES)] | None = None
    """Pins to choose from; retrieval is skipped."""
    exclude_pins: Annotated[Ids, Field(default_factory=list, max_length=MAX_CANDIDATES)]
    """Pins that must not be answered."""


class MissingCandidates(BaseModel):
    """What the online store could not say about the candidates."""

    unknown: int
    """Candidates that no Pin view knows; they are left out."""
    views: dict[str, dict[str, int]]
    """Per Pin view, how many candidates were `missing` or `outside_max_age`."""


class RecommendAnswer(RankingAnswer):
    """Ranked Pins and what they were chosen from."""

    source: Source
    """`retrieval`; `popular` for a user without any present view, or whose features could not be read; `request` when
    the request named candidates."""
    cold_start: bool
    """Whether no user view knows the user."""
    k_available: int
    """Candidates that could be answered; the answer holds `min(k, k_available)` Pins."""
    filtered: int
    """Candidates that a filter of the request took out."""
    missing: MissingCandidates


# Feast's online read blocks, so this is a plain `def` and runs in the thread pool.
@router.post(
    "/v1/recommend",
    response_model=RecommendAnswer,
    responses=ERRORS,
)
def recommend_pins(request: RecommendRequest, by: AnsweredBy, deadline: Timely) -> Response:
    """Retrieve candidates, score them and answer the `k` best; ties keep retrieval order."""
    user_id = by.choice.live.ids.key("user", request.user_id, "user_id")
    recommender, assignment = by.choice.of(user_id)
    check_surface(recommender.release, request.surface)
    now, ids = recommender.clock(), recommender.ids
    question = Question(
        user_id=user_id,
        surface=request.surface,
        k=request.k,
        candidates=tuple(ids.keys("pin", request.candidates, "candidates")) if request.candidates else None,
        exclude=tuple(ids.keys("pin", request.exclude_pins, "exclude_pins")),
        terms=request.terms(recommender),
    )
    found = recommend(recommender, question, now, deadline)
    if found.degraded is None and (shadow := by.shadow()) is not None:
        shadow.offer(Answered.of(recommender.release, question, now, found.ranked.pctr_by_pin(request.k)))
    by.watch.answered(recommender, assignment, question, found, now)
    return json_answer(
        ranking(recommender, assignment, found, request.user_id, now, request.k)
        | {
            "source": found.candidates.source,
            "cold_start": found.user is not None and all_missing(found.user),
            "k_available": len(found.ranked.pin_ids),
            "filtered": found.ranked.num_filtered,
            "missing": {"unknown": len(found.ranked.unknown), "views": not_present(found.ranked)},
        }
    )
