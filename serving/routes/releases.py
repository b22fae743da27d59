"""`GET /v1/releases`, and what changes which of them is live."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.release.manifest import ReleaseError, ReleaseId
from feature_repo.versions import (
    CatalogueError,
    CatalogueUnavailableError,
    Pointers,
    UnknownSubjectError,
    record_fields,
)
from serving.answers import ERRORS, Body
from serving.auth import Operator
from serving.errors import ErrorAnswer, ErrorDetail, RequestError
from serving.follower import Follower
from serving.state import Catalogued, Following

WRITE_ERRORS: dict[int | str, dict[str, Any]] = {
    **{status: ERRORS[status] for status in (400, 413, 422)},
    401: {"model": ErrorAnswer, "description": "The token is absent or wrong"},
    403: {"model": ErrorAnswer, "description": "The server was started without a token"},
    404: {"model": ErrorAnswer, "description": "No such release"},
    409: {"model": ErrorAnswer, "description": "The release must not go live, or another was promoted meanwhile"},
    503: {"model": ErrorAnswer, "description": "The catalogue cannot be reached"},
}

Reason = Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S")]

router = APIRouter(tags=["releases"])


class ReleaseAnswer(BaseModel):
    """One release of the catalogue."""

    id: str
    state: str
    """`candidate`, `live`, `superseded`, `retired` or `pruned`."""
    spaces: dict[str, str]
    """Space id by embedding version."""
    parent: str | None
    made_by: str
    data_cutoff: datetime | None
    created: datetime


class RefusalAnswer(BaseModel):
    """A release that this process should have loaded and could not."""

    release: str | None
    reason: str


class SplitAnswer(BaseModel):
    """A share of the users that another release answers."""

    name: str
    release: str
    share: float
    """Share of the users in the treatment."""
    holdout: float
    """Share of the users that no comparison counts."""


class ReleasesAnswer(BaseModel):
    """Releases, and what this process makes of them."""

    live: str | None
    """Release that the catalogue says is live."""
    shadow: str | None
    shadow_share: float
    split: SplitAnswer | None
    """The running A/B split."""
    loaded: str | None
    """Release that this process answers from; the live one, within a second of its promotion."""
    refused: RefusalAnswer | None
    """Why `loaded` is not `live`, when loading was tried."""
    releases: list[ReleaseAnswer]
    """Newest first."""


class PromoteRequest(Body):
    """Why, and what the caller believes to be live."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "+0.4 % ROC-AUC in the shadow"}]})

    why: Reason = "promoted over HTTP"
    expected_live: ReleaseId | None = None
    """Refuse when another release is live; unchecked when absent."""


class RollbackRequest(Body):
    """Why, and how far."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "complaints since noon"}]})

    why: Reason | None = None
    to: ReleaseId | None = None
    """An earlier live release; the one before the live one when absent."""


class PointersAnswer(BaseModel):
    """What servers follow from now on."""

    live: str | None
    revision: int
    """Grows with every change."""


# The catalogue's database blocks, so these are plain `def` and run in the thread pool.
@router.get("/v1/releases", responses={503: WRITE_ERRORS[503]})
def releases(follower: Following) -> ReleasesAnswer:
    """Every release of the catalogue, newest first, and which of them this process answers from."""
    catalogue, recommender, refusal = follower.catalogue, follower.recommender, follower.refusal
    pointers = Pointers(live=None, shadow=None, shadow_share=0.0, revision=0)
    found: list[ReleaseAnswer] = []
    if catalogue is not None:
        with Translated():
            pointers, records = catalogue.pointers(), catalogue.releases()
        found = [
            ReleaseAnswer(
                id=each.id,
                state=each.state.value,
                spaces=dict(each.versions),
                parent=each.parent,
                made_by=each.made_by,
                data_cutoff=each.data_cutoff,
                created=each.created,
            )
            for each in reversed(records)
        ]
    return ReleasesAnswer(
        live=pointers.live,
        shadow=pointers.shadow,
        shadow_share=pointers.shadow_share,
        split=SplitAnswer.model_validate(record_fields(pointers.split)) if pointers.split else None,
        loaded=recommender.release.manifest.release if recommender is not None else None,
        refused=RefusalAnswer(release=refusal.release, reason=refusal.reason) if refusal is not None else None,
        releases=found,
    )


@router.post("/v1/releases/{id}/promote", responses=WRITE_ERRORS)
def promote(
    id: Annotated[ReleaseId, Path()],
    operator: Operator,
    catalogue: Catalogued,
    follower: Following,
    body: PromoteRequest,
) -> PointersAnswer:
    """Make a release live for every server of the run; each follows within a second.

    This process loads it first: what cannot be loaded is not promoted.
    """
    with Translated():
        catalogue.check_may_go_live(id)
        with follower.prepared(id):
            expected = {"expected_live": body.expected_live} if body.expected_live is not None else {}
            pointers = catalogue.promote(id, who=operator, why=body.why, **expected)
    return _changed(follower, pointers)


@router.post("/v1/releases/rollback", responses=WRITE_ERRORS)
def rollback(operator: Operator, catalogue: Catalogued, follower: Following, body: RollbackRequest) -> PointersAnswer:
    """Make the release that was live before live again, for every server of the run."""
    with Translated():
        live, target = catalogue.pointers().live, catalogue.rollback_target(body.to)
        why = body.why or f"rolled back from {live} over HTTP"
        with follower.prepared(target):
            pointers = catalogue.rollback(who=operator, why=why, to=target, expected_live=live)
    return _changed(follower, pointers)


def _changed(follower: Follower, pointers: Pointers) -> PointersAnswer:
    follower.nudge()
    return PointersAnswer(live=pointers.live, revision=pointers.revision)


class Translated:
    """What the catalogue refuses, as the one error format says it."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CatalogueError | ReleaseError):
            code, status = _code(error)
            raise RequestError(ErrorDetail(code=code, message=str(error), remedy="see /v1/releases"), status) from error


def _code(error: Exception) -> tuple[str, int]:
    if isinstance(error, UnknownSubjectError):
        return "unknown_release", 404
    if isinstance(error, CatalogueUnavailableError):
        return "catalogue_unavailable", 503
    return "release_refused", 409
