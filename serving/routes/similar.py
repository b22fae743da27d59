"""`POST /v1/similar`: Pins like a Pin, from the index of the live release."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from serving.answers import (
    ERRORS,
    MAX_CANDIDATES,
    Body,
    DegradedAnswer,
    EntityId,
    Origin,
    degraded_part,
    json_answer,
    origin,
)
from serving.asking import Ids
from serving.deadlines import Timely
from serving.errors import ErrorAnswer, ErrorDetail, RequestError
from serving.recommender import Recommender
from serving.state import Ready, Watched
from serving.titles import read_titles

MAX_K = 200
UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "The Pin has no vector: neither the index nor a push since knows it"}
}

router = APIRouter(tags=["retrieval"])


class SimilarRequest(Body):
    """Like which Pin, and how many."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"pin_id": 14, "k": 10}]})

    pin_id: EntityId
    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    exclude_pins: Annotated[Ids, Field(default_factory=list, max_length=MAX_CANDIDATES)]
    """Pins that must not be answered."""


class SimilarPin(BaseModel):
    """One Pin near the asked one."""

    pin_id: int | str
    title: str | None
    similarity: float
    """Inner product of the two Pins' vectors, popularity left out."""


class SimilarAnswer(Origin):
    """Pins, nearest first; never the asked one itself."""

    degraded: DegradedAnswer | None
    """With `lacks` `titles` where those could not be read; the Pins are the same."""
    pins: list[SimilarPin]


# Titles come from the online store, whose read blocks, so this is a plain `def` and runs in the thread pool.
@router.post("/v1/similar", response_model=SimilarAnswer, responses=ERRORS | UNKNOWN)
def similar_pins(request: SimilarRequest, recommender: Ready, watch: Watched, deadline: Timely) -> Response:
    """Answer the `k` Pins whose vectors lie nearest to the Pin's."""
    now, ids = recommender.clock(), recommender.ids
    key = ids.key("pin", request.pin_id, "pin_id")
    exclude = ids.keys("pin", request.exclude_pins, "exclude_pins")
    found = recommender.release.retriever.similar(key, request.k, exclude, recommender.fresh_vectors())
    if found is None:
        raise _unknown(recommender, request.pin_id)
    titles, degraded = read_titles(recommender, found.pin_ids, now, deadline)
    watch.degraded(degraded)
    return json_answer(
        origin(recommender.release, now)
        | {
            "degraded": degraded_part(degraded),
            "pins": [
                {"pin_id": pin, "title": title, "similarity": similarity}
                for pin, title, similarity in zip(
                    ids.shown_pins(found.pin_ids), titles, found.scores.tolist(), strict=True
                )
            ],
        }
    )


def _unknown(recommender: Recommender, pin_id: int | str) -> RequestError:
    release = recommender.release.manifest.release
    detail = ErrorDetail(
        code="unknown_pin",
        message=f"pin_id must be in the index of release {release} or pushed since (got {pin_id!r})",
        field="pin_id",
        value=pin_id,
        remedy="ask for a Pin that was recommended or retrieved",
    )
    return RequestError(detail, status=404)
