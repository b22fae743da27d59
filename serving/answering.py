"""One answer from one release, within its deadline: what cannot be read or scored in time is left out, and said.

| what fails | the answer |
|---|---|
| the user's features | what is popular on the surface, unscored; Pins that the request named by their popularity |
| the candidates' features, or time to score them | the candidates as retrieval or the request ordered them, unscored |

A filter that cannot be checked lets nothing through.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from serving.deadlines import Deadline
from serving.recommender import NO_KEYS, Candidates, RankedPins, Recommender, without
from serving.store_guard import Reason, StoreDownError
from serving.terms import PLAIN, Keys, Terms

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead

USER_FEATURES, PIN_FEATURES = "user_features", "pin_features"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked of a release."""

    user_id: int
    surface: str
    k: int
    candidates: tuple[int, ...] | None = None
    """Pins to choose from; retrieved when not given."""
    exclude: tuple[int, ...] = ()
    terms: Terms = PLAIN


@dataclass(frozen=True, kw_only=True, slots=True)
class Degraded:
    """Why an answer is less than it should be."""

    reason: Reason
    lacks: str
    """`user_features` or `pin_features`: without them nothing is scored."""
    text: str
    """What happened, for a log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommended:
    """An answer and where it comes from."""

    user: OnlineRead | None
    """The user's features; none where they could not be read."""
    candidates: Candidates
    ranked: RankedPins
    degraded: Degraded | None = None


def read_user(
    recommender: Recommender, user_id: int, now: datetime, deadline: Deadline
) -> tuple[OnlineRead | None, Degraded | None]:
    """Features of a user, or why there are none."""
    try:
        if deadline.left_s() <= 0:
            raise StoreDownError("deadline", "the request waited until its deadline")
        with deadline.reads():
            return recommender.user(user_id, now), None
    except StoreDownError as error:
        return None, Degraded(reason=error.reason, lacks=USER_FEATURES, text=str(error))


def recommend(recommender: Recommender, question: Question, now: datetime, deadline: Deadline) -> Recommended:
    """Rank what the request named, or what is retrieved for the user."""
    user, degraded = read_user(recommender, question.user_id, now, deadline)
    if user is None:
        candidates = _popular(recommender, question)
        return Recommended(
            user=None, candidates=candidates, ranked=_unscored(candidates, question.terms), degraded=degraded
        )
    if question.candidates is None:
        candidates = recommender.candidates(user, question.surface, question.k, question.exclude)
    else:
        candidates = Candidates(pin_ids=without(question.candidates, question.exclude), source="request")
    try:
        ranked = _ranked(recommender, question, user, candidates, now, deadline)
    except StoreDownError as error:
        unscored = Degraded(reason=error.reason, lacks=PIN_FEATURES, text=str(error))
        ranked = _unscored(candidates, question.terms)
        return Recommended(user=user, candidates=candidates, ranked=ranked, degraded=unscored)
    return Recommended(user=user, candidates=candidates, ranked=ranked)


def _ranked(
    recommender: Recommender,
    question: Question,
    user: OnlineRead,
    candidates: Candidates,
    now: datetime,
    deadline: Deadline,
) -> RankedPins:
    if deadline.left_s() <= recommender.pace.expected_s:
        recommender.pace.skipped()
        raise StoreDownError("deadline", "no time was left to score the candidates")
    with deadline.reads(keep_s=recommender.pace.expected_s):
        return recommender.rank(user, candidates.pin_ids, question.surface, now, question.terms)


def _popular(recommender: Recommender, question: Question) -> Candidates:
    if question.candidates is None:
        return recommender.popular(question.surface, question.k, question.exclude)
    named = without(question.candidates, question.exclude)
    return Candidates(
        pin_ids=by_popularity(named, recommender.release.manifest.popular_on(question.surface)), source="request"
    )


def by_popularity(pin_ids: Keys, popular: list[int]) -> Keys:
    """Pins as they are listed among the popular ones, the others after them in their order."""
    place = {pin: number for number, pin in enumerate(popular)}
    ranks = np.array([place.get(pin, len(place)) for pin in pin_ids.tolist()], np.int64)
    ordered: Keys = pin_ids[np.argsort(ranks, kind="stable")]
    return ordered


def _unscored(candidates: Candidates, terms: Terms) -> RankedPins:
    if terms.filters:
        return RankedPins(pin_ids=NO_KEYS, scores=None, num_filtered=len(candidates.pin_ids))
    return RankedPins(pin_ids=candidates.pin_ids, scores=None)
