"""Parts of requests and responses that several routes share.

Answers are made as plain JSON values and written by orjson; the models say what is in them, for `/docs` and for tests,
which hold every answer against its model.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.contract import PRESENT
from serving.answering import Degraded, Recommended
from serving.entity_ids import EntityIds
from serving.errors import ErrorAnswer, ErrorDetail, RequestError
from serving.experiments import Assignment
from serving.recommender import RankedPins, Recommender
from serving.releases import Release
from serving.store_guard import Reason

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead

MAX_CANDIDATES = 1000
"""Most Pins that one request may name."""
LONGEST_TEXT = 200
"""Characters of the longest id or category that is taken."""
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS

EntityKey = Annotated[int, Field(ge=0, le=2**63 - 1)]
EntityText = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
EntityId = EntityKey | EntityText
"""A number, or a text where the dataset's ids are texts."""
Surface = Annotated[str, Field(max_length=LONGEST_TEXT)]
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The body is not JSON"},
    413: {"model": ErrorAnswer, "description": "The body is too long"},
    422: {"model": ErrorAnswer, "description": "A field is unknown, absent, of another type or out of bounds"},
    429: {"model": ErrorAnswer, "description": "Too many requests are answered or wait; `Retry-After` says when"},
    503: {"model": ErrorAnswer, "description": "No release is ready"},
}


class Body(BaseModel):
    """A request body: unknown fields are errors, and `"1"` is no integer."""

    model_config = ConfigDict(extra="forbid", strict=True)


class AssignmentAnswer(BaseModel):
    """The running A/B split and where the user is in it."""

    name: str
    arm: Literal["control", "treatment", "holdout"]
    """`treatment` is answered by the split's release, the others by the live one."""


class UserAnswer(BaseModel):
    """The user, and what each view knew."""

    user_id: int | str
    status: dict[str, str]
    """Per user view: `present`, `missing` or `outside_max_age`; empty where they could not be read."""


class DegradedAnswer(BaseModel):
    """Why an answer is less than it should be."""

    reason: Reason
    """`deadline`: no time was left; `store_timeout`: the online store was slow; `store_unavailable`: it failed."""
    lacks: str
    """What could not be had: `user_features`, `pin_features` or `titles`."""


class RankedPin(BaseModel):
    """One Pin of a ranking."""

    pin_id: int | str
    title: str | None
    score: float | None
    """What the ranking is ordered by: expected value where the request has bids, else pctr; null when degraded."""
    pctr: float | None
    """Calibrated probability of a click; null when degraded."""
    pcvr: float | None
    """Calibrated probability of a conversion given a click; null in a release without such a model."""
    expected_value: float | None
    """Bid times the probability of what it is for; null without bids."""


class Origin(BaseModel):
    """What every answer says about where it comes from."""

    release: str
    """The one release that answered."""
    embeddings: list[str]
    """Embedding versions of that release."""
    as_of: datetime
    """Moment against which TTLs were counted."""


class RankingAnswer(Origin):
    """What every ranking says about its origin."""

    split: AssignmentAnswer | None
    """The running A/B split and the user's arm; null without one."""
    user: UserAnswer
    degraded: DegradedAnswer | None
    """Null for an answer with everything in it."""
    ranked: list[RankedPin]


def json_answer(content: Mapping[str, Any]) -> Response:
    """An answer with status 200."""
    return Response(orjson.dumps(content, option=_OPTIONS), media_type="application/json")


def origin(release: Release, now: datetime) -> dict[str, Any]:
    """Values of `Origin`."""
    return {"release": release.manifest.release, "embeddings": release.embeddings, "as_of": now}


def split_part(assignment: Assignment | None) -> dict[str, str] | None:
    """Value of `AssignmentAnswer`; none without a split."""
    return None if assignment is None else {"name": assignment.split, "arm": assignment.arm}


def user_status(user: OnlineRead | None) -> dict[str, str]:
    """Per view, what it knew of the one user."""
    return {} if user is None else {view: codes[0].as_py() for view, codes in user.statuses.items()}


def degraded_part(degraded: Degraded | None) -> dict[str, str] | None:
    """Value of `DegradedAnswer`."""
    return None if degraded is None else {"reason": degraded.reason, "lacks": degraded.lacks}


def ranking(
    recommender: Recommender,
    assignment: Assignment | None,
    found: Recommended,
    user_id: int | str,
    now: datetime,
    k: int | None = None,
) -> dict[str, Any]:
    """Values of `RankingAnswer`, with the first `k` Pins."""
    return {
        **origin(recommender.release, now),
        "split": split_part(assignment),
        "user": {"user_id": user_id, "status": user_status(found.user)},
        "degraded": degraded_part(found.degraded),
        "ranked": ranked_pins(recommender.ids, found.ranked, k),
    }


def ranked_pins(ids: EntityIds, ranked: RankedPins, k: int | None = None) -> list[dict[str, Any]]:
    """Values of `RankedPin` of the first `k`."""
    pins, titles = ids.shown_pins(ranked.pin_ids[:k]), ranked.titles(k)
    nothing: list[float | None] = [None] * len(pins)
    columns = (ranked.score, ranked.pctr, ranked.pcvr, ranked.expected_value)
    plain = [nothing if column is None else column[:k].tolist() for column in columns]
    return [
        {"pin_id": pin, "title": title, "score": score, "pctr": pctr, "pcvr": pcvr, "expected_value": value}
        for pin, title, score, pctr, pcvr, value in zip(pins, titles, *plain, strict=True)
    ]


def not_present(ranked: RankedPins) -> dict[str, dict[str, int]]:
    """Per Pin view, how many candidates were missing or outside max age; views without any are left out."""
    counts = {view: {s: n for s, n in found.items() if s != PRESENT} for view, found in ranked.status_counts.items()}
    return {view: found for view, found in counts.items() if found}


def check_surface(release: Release, surface: str) -> None:
    """Pass when the surface was known at the release's training cut-off.

    Raises:
        RequestError: It was not.
    """
    known = release.manifest.surfaces
    if surface not in known:
        message = f"surface must be known to release {release.manifest.release} (got {surface!r})"
        remedy = f"use one of {', '.join(known)}"
        raise RequestError(
            ErrorDetail(code="unknown_surface", message=message, field="surface", value=surface, remedy=remedy)
        )
