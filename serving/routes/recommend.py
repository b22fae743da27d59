"""`POST /v1/recommend`: the best Pins for a user on a surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

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
    not_present,
)
from serving.recommender import Candidates, Recommender, Source, all_missing, without
from serving.shadow import Answered
from serving.state import Chosen, Shadowed, Watched

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead

MAX_K = 200
"""Most Pins that one answer holds."""

router = APIRouter(tags=["ranking"])


class RecommendRequest(Body):
    """Who asks, where, and for how many Pins."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": 712, "surface": "1", "k": 10}]})

    user_id: EntityKey
    surface: str
    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    candidates: Annotated[list[EntityKey], Field(min_length=1, max_length=MAX_CANDIDATES)] | None = None
    """Pins to choose from; retrieval is skipped."""
    exclude_pins: Annotated[list[EntityKey], Field(default_factory=list, max_length=MAX_CANDIDATES)]
    """Pins that must not be answered."""


class MissingCandidates(BaseModel):
    """What the online store could not say about the candidates."""

    unknown: int
    """Candidates missing in every Pin view; they were left out."""
    views: dict[str, dict[str, int]]
    """Per Pin view, how many candidates were `missing` or `outside_max_age`."""


class RecommendAnswer(RankingAnswer):
    """Ranked Pins and what they were chosen from."""

    source: Source
    """`retrieval`; `popular` for a user without any present view; `request` when the request named candidates."""
    cold_start: bool
    """Whether no user view knows the user."""
    k_available: int
    """Candidates that were scored; the answer holds `min(k, k_available)` Pins."""
    missing: MissingCandidates


# Feast's online read blocks, so this is a plain `def` and runs in the thread pool.
@router.post("/v1/recommend", responses=ERRORS)
def recommend(request: RecommendRequest, choice: Chosen, shadow: Shadowed, watch: Watched) -> RecommendAnswer:
    """Retrieve candidates, score them and answer the `k` with the highest pctr; ties keep retrieval order."""
    recommender, assignment = choice.of(request.user_id)
    release = recommender.release
    check_surface(release, request.surface)
    now = recommender.clock()
    user = recommender.user(request.user_id, now)
    candidates = _candidates(request, recommender, user)
    ranked = recommender.rank(user, candidates.pin_ids, request.surface, now)
    if shadow is not None:
        shadow.offer(
            Answered(
                release=release.manifest.release,
                user_id=request.user_id,
                surface=request.surface,
                now=now,
                k=request.k,
                candidates=None if request.candidates is None else tuple(request.candidates),
                exclude=tuple(request.exclude_pins),
                pctr=ranked.scores(request.k),
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
        k=request.k,
        source=candidates.source,
    )
    return RecommendAnswer(
        release=release.manifest.release,
        embeddings=release.embeddings,
        split=AssignmentAnswer.of(assignment),
        as_of=now,
        user=UserAnswer.of(request.user_id, user),
        ranked=RankedPin.list_of(ranked, request.k),
        source=candidates.source,
        cold_start=all_missing(user),
        k_available=len(ranked.pin_ids),
        missing=MissingCandidates(unknown=len(ranked.unknown), views=not_present(ranked)),
    )


def _candidates(request: RecommendRequest, recommender: Recommender, user: OnlineRead) -> Candidates:
    if request.candidates is None:
        return recommender.candidates(user, request.surface, request.k, request.exclude_pins)
    return Candidates(pin_ids=without(request.candidates, request.exclude_pins), source="request")
