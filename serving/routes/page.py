"""`GET /`: a page to look at the live release with."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from serving.answering import Question
from serving.answers import LONGEST_TEXT, check_surface
from serving.deadlines import Deadline, Timely
from serving.entity_ids import Id
from serving.errors import RequestError
from serving.page import age_text, recommendations, similar
from serving.recommender import Recommender
from serving.state import Following, Ready

MOST = 50
LARGEST_KEY = 2**63 - 1
OK = 200
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

router = APIRouter(include_in_schema=False)
_templates = Environment(
    loader=PackageLoader("serving"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

Text = Annotated[str, Query(max_length=LONGEST_TEXT)]


# Feast's online read blocks, so this is a plain `def` and runs in the thread pool.
@router.get("/", response_class=HTMLResponse)
def page(
    recommender: Ready,
    follower: Following,
    deadline: Timely,
    user: Text = "",
    surface: Text = "",
    pin: Text = "",
    k: Annotated[int, Query(ge=1, le=MOST)] = 10,
) -> HTMLResponse:
    """The live release, a user's recommendations and Pins like a Pin."""
    now, manifest = recommender.clock(), recommender.release.manifest
    asked = {"user": user.strip(), "surface": surface or manifest.surfaces[0], "pin": pin.strip(), "k": k}
    status, content = _content(recommender, asked, now, deadline)
    refusals = [each for each in (follower.refusal, follower.shadow_refusal) if each is not None]
    text = _templates.get_template("page.html").render(
        asked=asked,
        manifest=manifest,
        embeddings=recommender.release.embeddings,
        now=now,
        data_age=age_text(now - manifest.data_cutoff),
        shadow=follower.shadow.release if follower.shadow is not None else None,
        warnings=[each.reason for each in refusals],
        **content,
    )
    return HTMLResponse(text, status_code=status, headers=HEADERS)


def _content(
    recommender: Recommender, asked: dict[str, Any], now: datetime, deadline: Deadline
) -> tuple[int, dict[str, Any]]:
    """Status of the answer and what the page shows below its form."""
    content: dict[str, Any] = {"shown": None, "near": None, "problem": None}
    try:
        check_surface(recommender.release, asked["surface"])
        if asked["user"]:
            key = recommender.ids.key("user", _given(recommender, "user", asked["user"]), "user")
            question = Question(user_id=key, surface=asked["surface"], k=asked["k"])
            content["shown"] = recommendations(recommender, question, now, deadline)
        if asked["pin"]:
            key = recommender.ids.key("pin", _given(recommender, "pin", asked["pin"]), "pin")
            content["near"] = similar(recommender, key, now, deadline)
    except RequestError as error:
        content["problem"] = error.detail
        return error.status, content
    return OK, content


def _given(recommender: Recommender, entity: str, text: str) -> Id:
    """An id as the release has them: a form gives texts alone."""
    is_key = text.isascii() and text.isdecimal() and int(text) <= LARGEST_KEY
    return int(text) if is_key and entity not in recommender.ids.texts else text
