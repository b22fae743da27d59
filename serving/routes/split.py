"""`POST /v1/releases/{id}/split` and `POST /v1/releases/split/end`: an A/B split by user, on every server."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.release.manifest import ReleaseId
from feature_repo.versions import Split, record_fields
from serving.answers import Body
from serving.auth import Operator
from serving.errors import ErrorDetail, RequestError
from serving.routes.releases import WRITE_ERRORS, Reason, SplitAnswer, Translated
from serving.state import Catalogued, Following

SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]

router = APIRouter(tags=["releases"])


class SplitRequest(Body):
    """Which users, and why."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"share": 0.1, "holdout": 0.1, "name": "wider-towers", "why": "a trial"}]}
    )

    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of the users in the treatment."""
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the users that no comparison counts; the live release answers them."""
    name: SplitName | None = None
    """What answers and logs call the split; the release's id when absent."""
    salt: SplitName | None = None
    """Draws the users; the name when absent."""
    why: Reason = "tried on users"


class SplitEndRequest(Body):
    """Why the split ends."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "seen enough"}]})

    why: Reason = "tried enough"


class SplitChange(BaseModel):
    """What servers follow from now on."""

    split: SplitAnswer | None
    revision: int
    """Grows with every change."""


# The catalogue's database blocks, so these are plain `def` and run in the thread pool.
@router.post("/v1/releases/{id}/split", responses=WRITE_ERRORS)
def start(
    id: Annotated[ReleaseId, Path()],
    operator: Operator,
    catalogue: Catalogued,
    follower: Following,
    body: SplitRequest,
) -> SplitChange:
    """Let a release answer a share of the users, in place of a split that runs; each server follows within a second.

    This process loads it first: what cannot be loaded answers nobody.
    """
    wanted = _wanted(id, body)
    with Translated():
        catalogue.check_may_go_live(id)
        with follower.prepared(id):
            revision = catalogue.split(wanted, who=operator, why=body.why).revision
    follower.nudge()
    return SplitChange(split=SplitAnswer.model_validate(record_fields(wanted)), revision=revision)


@router.post("/v1/releases/split/end", responses=WRITE_ERRORS)
def end(operator: Operator, catalogue: Catalogued, follower: Following, body: SplitEndRequest) -> SplitChange:
    """Let the live release answer every user again."""
    with Translated():
        revision = catalogue.split(None, who=operator, why=body.why).revision
    follower.nudge()
    return SplitChange(split=None, revision=revision)


def _wanted(release: str, body: SplitRequest) -> Split:
    name = body.name or release
    try:
        return Split(name=name, release=release, share=body.share, holdout=body.holdout, salt=(body.salt or name)[:64])
    except ValueError as error:
        detail = ErrorDetail(code="invalid_request", message=str(error), field="holdout", remedy="make them smaller")
        raise RequestError(detail) from error
