"""Parts of requests and responses that several routes share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from feature_repo.contract import PRESENT
from serving.errors import ErrorAnswer, ErrorDetail, RequestError
from serving.experiments import Assignment
from serving.recommender import RankedPins
from serving.releases import Release

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead

MAX_CANDIDATES = 1000
"""Most Pins that one request may name."""

EntityKey = Annotated[int, Field(ge=0, le=2**63 - 1)]
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The body is not JSON"},
    413: {"model": ErrorAnswer, "description": "The body is too long"},
    422: {"model": ErrorAnswer, "description": "A field is unknown, absent, of another type or out of bounds"},
    503: {"model": ErrorAnswer, "description": "No release is ready"},
}


class Body(BaseModel):
    """A request body: unknown fields are errors, and `"1"` is no integer."""

    model_config = ConfigDict(extra="forbid", strict=True)


class UserAnswer(BaseModel):
    """The user, and what each view knew."""

    user_id: int
    status: dict[str, str]
    """Per user view: `present`, `missing` or `outside_max_age`."""

    @classmethod
    def of(cls, user_id: int, rows: OnlineRead) -> UserAnswer:
        """From the read of one user."""
        return cls(user_id=user_id, status={view: codes[0].as_py() for view, codes in rows.statuses.items()})


class RankedPin(BaseModel):
    """One Pin of a ranking."""

    pin_id: int
    title: str | None
    score: float
    """What the ranking is ordered by: pctr."""
    pctr: float
    """Calibrated probability of a click."""
    pcvr: float | None
    """Calibrated probability of a conversion given a click; null in a release without such a model."""

    @classmethod
    def list_of(cls, ranked: RankedPins, k: int | None = None) -> list[RankedPin]:
        """The first `k` of a ranking."""
        pcvr: Sequence[float | None] = ranked.pcvr or [None] * len(ranked.pin_ids)
        rows = list(zip(ranked.pin_ids, ranked.titles, ranked.pctr, pcvr, strict=True))[:k]
        return [cls(pin_id=pin, title=title, score=ctr, pctr=ctr, pcvr=cvr) for pin, title, ctr, cvr in rows]


class AssignmentAnswer(BaseModel):
    """The running A/B split and where the user is in it."""

    name: str
    arm: Literal["control", "treatment", "holdout"]
    """`treatment` is answered by the split's release, the others by the live one."""

    @classmethod
    def of(cls, assignment: Assignment | None) -> AssignmentAnswer | None:
        """None without a split."""
        return None if assignment is None else cls.model_validate({"name": assignment.split, "arm": assignment.arm})


class RankingAnswer(BaseModel):
    """What every ranking says about its origin."""

    release: str
    """The one release that answered."""
    embeddings: list[str]
    """Embedding versions of that release."""
    split: AssignmentAnswer | None
    """The running A/B split and the user's arm; null without one."""
    as_of: datetime
    """Moment against which TTLs were counted."""
    user: UserAnswer
    ranked: list[RankedPin]


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
