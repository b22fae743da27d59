"""`POST /v1/features`: what the online store holds for users or Pins."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.contract import feature_reference
from serving.answers import ERRORS, Body, Origin, json_answer, origin
from serving.asking import Ids
from serving.deadlines import Timely
from serving.errors import ErrorAnswer, ErrorDetail, RequestError
from serving.online_features import EntityFeatures, by_view
from serving.state import Ready
from serving.store_guard import StoreDownError

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead

MAX_KEYS = 1000
MAX_FEATURES = 500
RETRY_AFTER = {"retry-after": "1"}
ANSWERS = ERRORS | {503: {"model": ErrorAnswer, "description": "No release is ready, or the store does not answer"}}

router = APIRouter(tags=["features"])


class FeaturesRequest(Body):
    """Whose features, and which."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"entity": "user", "ids": [712], "features": ["user_activity:impressions_ever"]}]
        }
    )

    entity: Literal["user", "pin"]
    ids: Annotated[Ids, Field(min_length=1, max_length=MAX_KEYS)]
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

    id: int | str
    views: dict[str, ViewAnswer]


class FeaturesAnswer(Origin):
    """Answers in the order of the request's ids."""

    results: list[KeyAnswer]


# Feast's online read blocks, so this is a plain `def` and runs in the thread pool.
@router.post("/v1/features", response_model=FeaturesAnswer, responses=ANSWERS)
def read_features(request: FeaturesRequest, recommender: Ready, deadline: Timely) -> Response:
    """Read online features with the status and event timestamp of every view."""
    known, now = recommender.features[request.entity], recommender.clock()
    references = list(dict.fromkeys(request.features or known.references))
    _check_known(known, references)
    keys = recommender.ids.keys(request.entity, request.ids, "ids")
    try:
        with deadline.reads():
            rows = known.read(keys, now, set(references) if request.features else None)
    except StoreDownError as error:
        raise _unavailable(error) from error
    views = {view: _view_answers(rows, view, names) for view, names in by_view(references).items()}
    results = [
        {"id": shown, "views": dict(zip(views, answers, strict=True))}
        for shown, answers in zip(request.ids, zip(*views.values(), strict=True), strict=True)
    ]
    return json_answer(origin(recommender.release, now) | {"results": results})


def _check_known(known: EntityFeatures, references: list[str]) -> None:
    readable = set(known.references)
    for reference in references:
        if reference not in readable:
            message = f"features must be {known.entity} features that the release reads (got {reference!r})"
            remedy = f"use view:feature; the release reads the views {', '.join(by_view(known.references))}"
            raise RequestError(
                ErrorDetail(code="unknown_feature", message=message, field="features", value=reference, remedy=remedy)
            )


def _unavailable(error: StoreDownError) -> RequestError:
    detail = ErrorDetail(
        code=error.reason,
        message="the online store must answer within the deadline (it did not)",
        remedy="try again after a second, or with a longer X-Deadline-Ms",
    )
    return RequestError(detail, status=503, headers=RETRY_AFTER)


def _view_answers(rows: OnlineRead, view: str, names: list[str]) -> list[dict[str, Any]]:
    """One view's answer for each key."""
    columns = [_plain(rows.features[feature_reference(view, name)]) for name in names]
    said = rows.statuses[view].dictionary.to_pylist()
    statuses = [said[code] for code in rows.codes(view).tolist()]
    return [
        {"status": status, "event_timestamp": stamp, "values": dict(zip(names, values, strict=True))}
        for status, stamp, values in zip(
            statuses, _texts_of(rows.event_timestamps[view]), zip(*columns, strict=True), strict=True
        )
    ]


def _texts_of(moments: pa.Array) -> list[Any]:
    """ISO texts; most rows of a view share one moment, so each is written once."""
    distinct = moments.dictionary_encode()
    texts = [moment.isoformat().replace("+00:00", "Z") for moment in distinct.dictionary.to_pylist()]
    return [None if place is None else texts[place] for place in distinct.indices.to_pylist()]


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """Values for JSON, null where a number is not finite; lists of numbers of one width as rows of a matrix."""
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], column.type)
    if pa.types.is_list(whole.type) and pa.types.is_floating(whole.type.value_type):
        return _number_lists(whole)
    if pa.types.is_floating(whole.type):
        return _finite_numbers(whole.to_numpy(zero_copy_only=False))
    if pa.types.is_integer(whole.type) and not whole.null_count:
        numbers: list[Any] = whole.to_numpy().tolist()
        return numbers
    if pa.types.is_timestamp(whole.type) and whole.type.tz is not None:
        return _texts_of(whole)
    values: list[Any] = whole.to_pylist()
    return values


def _finite_numbers(numbers: npt.NDArray[Any]) -> list[Any]:
    finite = np.isfinite(numbers)
    if not finite.all():
        numbers = numbers.astype(object)
        numbers[~finite] = None
    values: list[Any] = numbers.tolist()
    return values


def _number_lists(lists: pa.ListArray) -> list[Any]:
    widths = np.diff(lists.offsets.to_numpy())
    valid = lists.is_valid().to_numpy(zero_copy_only=False)
    found = set(widths[valid].tolist())
    if len(found) != 1 or lists.flatten().null_count:
        return [None if row is None else [_finite(value) for value in row] for row in lists.to_pylist()]
    matrix = iter(np.ascontiguousarray(lists.flatten().to_numpy(zero_copy_only=False)).reshape(-1, *found))
    return [next(matrix) if has else None for has in valid.tolist()]


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
