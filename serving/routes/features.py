"""`POST /v1/features`: what the online store holds for users or Pins."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.contract import feature_reference
from serving.answers import ERRORS, Body, EntityKey
from serving.errors import ErrorDetail, RequestError
from serving.online_features import EntityFeatures, by_view
from serving.state import Ready

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead

MAX_KEYS = 1000
MAX_FEATURES = 500

router = APIRouter(tags=["features"])


class FeaturesRequest(Body):
    """Whose features, and which."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"entity": "user", "ids": [712], "features": ["user_activity:impressions_ever"]}]
        }
    )

    entity: Literal["user", "pin"]
    ids: Annotated[list[EntityKey], Field(min_length=1, max_length=MAX_KEYS)]
    features: Annotated[list[str], Field(min_length=1, max_length=MAX_FEATURES)] | None = None
    """Feast references `view:feature`, among those that the release reads; all of them when absent."""


class ViewAnswer(BaseModel):
    """One view's answer for one key."""

    status: str
    """`present`, `missing` or `outside_max_age`."""
    event_timestamp: datetime | None
    """From when the stored row may be used; null where missing."""
    values: dict[str, Any]
    """Feature values; null unless present."""


class KeyAnswer(BaseModel):
    """All views' answers for one key."""

    id: int
    views: dict[str, ViewAnswer]


class FeaturesAnswer(BaseModel):
    """Answers in the order of the request's ids."""

    release: str
    as_of: datetime
    """Moment against which TTLs were counted."""
    results: list[KeyAnswer]


# Feast's online read blocks, so this is a plain `def` and runs in the thread pool.
@router.post("/v1/features", responses=ERRORS)
def features(request: FeaturesRequest, recommender: Ready) -> FeaturesAnswer:
    """Read online features with the status and event timestamp of every view."""
    known, now = recommender.features[request.entity], recommender.clock()
    references = list(dict.fromkeys(request.features or known.references))
    _check_known(known, references)
    rows = known.read(request.ids, now)
    results = [_answer(rows, references, position, key) for position, key in enumerate(request.ids)]
    return FeaturesAnswer(release=recommender.release.manifest.release, as_of=now, results=results)


def _check_known(known: EntityFeatures, references: list[str]) -> None:
    for reference in references:
        if reference not in known.references:
            message = f"features must be {known.entity} features that the release reads (got {reference!r})"
            remedy = f"use view:feature; the release reads the views {', '.join(by_view(known.references))}"
            raise RequestError(
                ErrorDetail(code="unknown_feature", message=message, field="features", value=reference, remedy=remedy)
            )


def _answer(rows: OnlineRead, references: list[str], position: int, key: int) -> KeyAnswer:
    views = {
        view: ViewAnswer(
            status=rows.statuses[view][position].as_py(),
            event_timestamp=rows.event_timestamps[view][position].as_py(),
            values={name: _value(rows, view, name, position) for name in names},
        )
        for view, names in by_view(references).items()
    }
    return KeyAnswer(id=key, views=views)


def _value(rows: OnlineRead, view: str, name: str, position: int) -> Any:
    value = rows.features[feature_reference(view, name)][position].as_py()
    return None if isinstance(value, float) and not math.isfinite(value) else value
