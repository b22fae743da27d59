"""What the process holds between requests, as handlers ask for it.

None of these blocks, so each is `async` and costs no turn in the thread pool. Those that every ranking asks for come
together and without dependencies of their own, because FastAPI takes its time for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from feature_repo.versions import Catalogue
from serving.errors import ErrorDetail, NotReadyError, RequestError
from serving.experiments import TREATMENT, Assignment, RunningSplit, assigned
from serving.follower import Follower
from serving.metrics import Metrics
from serving.monitoring.request import note_choice
from serving.monitoring.watch import Watch
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


async def get_watch(request: Request) -> Watch:
    """What is told of every answer."""
    watch: Watch = request.app.state.watch
    return watch


Following = Annotated[Follower, Depends(get_follower)]
Measured = Annotated[Metrics, Depends(get_metrics)]
Pushing = Annotated[Pushes, Depends(get_pushes)]
Watched = Annotated[Watch, Depends(get_watch)]


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


async def get_recommender(request: Request) -> Recommender:
    """The recommender that this request keeps to its end, whatever is promoted meanwhile.

    Raises:
        NotReadyError: There is none.
    """
    return _recommender_of(request.app.state.follower)


def _recommender_of(follower: Follower) -> Recommender:
    recommender = follower.recommender
    if recommender is None:
        refusal = follower.refusal
        raise NotReadyError(refusal.reason if refusal else "a release must be loaded (none is yet); try again")
    note_choice(recommender.release.manifest.release)
    return recommender


Ready = Annotated[Recommender, Depends(get_recommender)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What answers a request, by user: the live release, or in the treatment of a split that one's."""

    live: Recommender
    split: RunningSplit | None

    def of(self, user_id: int) -> tuple[Recommender, Assignment | None]:
        """The recommender that the whole request is answered by, and the user's arm of the running split."""
        chosen, assignment = self.live, None
        if self.split is not None:
            assignment = assigned(self.split.declared, user_id)
            if assignment.arm == TREATMENT:
                chosen = self.split.recommender or self.live
        note_choice(chosen.release.manifest.release, assignment.arm if assignment is not None else "")
        return chosen, assignment


@dataclass(frozen=True, kw_only=True, slots=True)
class Answering:
    """What answers a request of a user, and what is told of the answer."""

    choice: Choice
    watch: Watch
    _follower: Follower

    def shadow(self) -> Shadow | None:
        """The shadow release, for the share of the requests that it is to score."""
        shadow = self._follower.shadow
        return shadow if shadow is not None and shadow.chosen() else None


async def get_answering(request: Request) -> Answering:
    """What answers this request, to its end, whatever is promoted or split meanwhile.

    Raises:
        NotReadyError: No release is loaded.
    """
    state = request.app.state
    follower: Follower = state.follower
    choice = Choice(live=_recommender_of(follower), split=follower.split)
    return Answering(choice=choice, watch=state.watch, _follower=follower)


Catalogued = Annotated[Catalogue, Depends(get_catalogue)]
AnsweredBy = Annotated[Answering, Depends(get_answering)]
