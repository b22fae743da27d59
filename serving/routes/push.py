"""`POST /v1/push`: vectors of new or changed users or Pins from the current towers, online and offline at once."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from feature_repo.push.errors import NoInputsError, PushError, TowersError
from feature_repo.versions import CatalogueError, UnknownSubjectError
from serving.answers import ERRORS as SHARED_ERRORS
from serving.answers import Body, EntityId
from serving.auth import Operator
from serving.errors import ErrorAnswer, ErrorDetail, RequestError
from serving.routes.releases import WRITE_ERRORS
from serving.state import Catalogued, Pushing, Ready

if TYPE_CHECKING:
    from feature_repo.push.records import Pushed

MAX_ROWS = 1000
"""Most entities of one request."""
ERRORS: dict[int | str, dict[str, Any]] = {
    400: WRITE_ERRORS[400],
    401: WRITE_ERRORS[401],
    403: WRITE_ERRORS[403],
    404: {"model": ErrorAnswer, "description": "No such embedding version"},
    409: {"model": ErrorAnswer, "description": "A version has no towers to compute with; the text says what to run"},
    413: {"model": ErrorAnswer, "description": "The body is too long"},
    429: SHARED_ERRORS[429],
    422: {"model": ErrorAnswer, "description": "A row cannot be pushed; the text names key, attribute and value"},
    503: {"model": ErrorAnswer, "description": "No release is ready, or a store cannot be reached"},
}

router = APIRouter(tags=["features"])


class PushRow(Body):
    """One entity, and what is known of it now."""

    id: EntityId
    attributes: dict[str, Any] = Field(default_factory=dict)
    """Declared attributes by name; what is absent or null stays as it was."""


class PushRequest(Body):
    """Whose vectors to compute."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"entity": "user", "rows": [{"id": 990001, "attributes": {"segment": "new"}}]}],
        }
    )

    entity: Literal["user", "pin"]
    rows: Annotated[list[PushRow], Field(min_length=1, max_length=MAX_ROWS)]
    versions: Annotated[list[str], Field(default_factory=list, max_length=100)]
    """Embedding versions; every one in use when absent."""
    event_timestamp: Annotated[AwareDatetime, Field(strict=False)] | None = None
    """Moment that the push is of, now when absent. The same push of the same moment again changes nothing."""


class VersionAnswer(BaseModel):
    """What one embedding version's view got."""

    version: str
    view: str
    space_id: str
    towers: datetime
    """Data cut-off of the towers."""
    continued: int
    """Entities whose vector continues the newest snapshot's."""
    newer_kept: int | None
    """Entities of which a newer row stays online; null where the store does not say."""
    unseen: dict[str, int]
    """Given categories that the towers have never seen, per attribute."""


class PushAnswer(BaseModel):
    """A push that is done: the rows can be read online and offline."""

    entity: str
    rows: int
    event_timestamp: datetime
    """From when the rows may be used."""
    attributes: int
    """Entities whose attributes were written."""
    versions: list[VersionAnswer]
    seconds: float


# Stores block, so this is a plain `def` and runs in the thread pool.
@router.post("/v1/push", responses=ERRORS)
def push(
    body: PushRequest, operator: Operator, catalogue: Catalogued, recommender: Ready, pushes: Pushing
) -> PushAnswer:
    """Compute vectors with the current towers of every embedding version in use, and write them and the attributes."""
    del operator
    keys = recommender.ids.keys(body.entity, [row.id for row in body.rows], "rows", ".id")
    with _Translated():
        pushed = pushes.pusher(catalogue).push(
            body.entity,
            keys,
            {key: row.attributes for key, row in zip(keys, body.rows, strict=True)},
            keys=body.versions,
            event_timestamp=body.event_timestamp,
            clock=recommender.clock,
        )
    return _answer(pushed)


def _answer(pushed: Pushed) -> PushAnswer:
    return PushAnswer.model_validate(pushed.to_dict())


class _Translated:
    """What a push is refused for, as the one error format says it."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and (found := _code(error)) is not None:
            code, status, remedy = found
            raise RequestError(ErrorDetail(code=code, message=str(error), remedy=remedy), status) from error


def _code(error: Exception) -> tuple[str, int, str] | None:
    from feature_repo.stores.online.errors import OnlineStoreUnavailableError, PackedWriteError

    if isinstance(error, UnknownSubjectError):
        return "unknown_version", 404, "GET /v1/releases lists the versions in use"
    if isinstance(error, TowersError):
        return "no_towers", 409, "the message names the command to run beside the server"
    if isinstance(error, NoInputsError):
        return "nothing_known", 422, "give attributes of the entity"
    if isinstance(error, PushError | PackedWriteError):
        return "push_refused", 422, "correct the row; docs/push.md lists what is taken"
    if isinstance(error, OnlineStoreUnavailableError | CatalogueError | OSError):
        return "store_unavailable", 503, "send the same push again; see the server's log"
    return None
