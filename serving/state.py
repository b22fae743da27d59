"""What the process holds between requests, as handlers ask for it.

None of these blocks, so each is `async` and costs no turn in the thread pool.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from feature_repo.versions import Catalogue
from serving.errors import ErrorDetail, NotReadyError, RequestError
from serving.follower import Follower
from serving.metrics import Metrics
from serving.pushes import Pushes
from serving.recommender import Recommender
from serving.shadow import Shadow


async def get_follower(request: Request) -> Follower:
    """The follower of the app."""
    follower: Follower = request.app.state.follower
    return follower


async def get_metrics(request: Request) -> Metrics:
    """The metrics of the app."""
    metrics: Metrics = request.app.state.metrics
    return metrics


async def get_pushes(request: Request) -> Pushes:
    """What pushes into the app's run."""
    pushes: Pushes = request.app.state.pushes
    return pushes


Following = Annotated[Follower, Depends(get_follower)]
Measured = Annotated[Metrics, Depends(get_metrics)]
Pushing = Annotated[Pushes, Depends(get_pushes)]


async def get_catalogue(follower: Following) -> Catalogue:
    """The catalogue that the app follows.

    Raises:
        RequestError: It serves one release whatever a catalogue says.
    """
    if follower.catalogue is None:
        detail = ErrorDetail(
            code="no_catalogue",
            message="the server must follow a catalogue to know versions and releases (this one does not)",
            remedy="start it without HEADWATER_RELEASE_DIR on a run that has a feature repo",
        )
        raise RequestError(detail, status=409)
    return follower.catalogue


async def get_recommender(follower: Following) -> Recommender:
    """The recommender that this request keeps to its end, whatever is promoted meanwhile.

    Raises:
        NotReadyError: There is none.
    """
    recommender = follower.recommender
    if recommender is None:
        refusal = follower.refusal
        raise NotReadyError(refusal.reason if refusal else "a release must be loaded (none is yet); try again")
    return recommender


async def get_shadow(follower: Following) -> Shadow | None:
    """The shadow release, for the share of the requests that it is to score."""
    shadow = follower.shadow
    return shadow if shadow is not None and shadow.chosen() else None


Catalogued = Annotated[Catalogue, Depends(get_catalogue)]
Ready = Annotated[Recommender, Depends(get_recommender)]
Shadowed = Annotated[Shadow | None, Depends(get_shadow)]
