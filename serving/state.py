"""What the process holds between requests: a recommender, or the reason why there is none."""

from __future__ import annotations

import gc
import logging
import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request

from serving.agreement import check_agreement
from serving.artifacts import ANY_SURFACE, ReleaseError
from serving.clock import make_clock
from serving.errors import NotReadyError
from serving.online_features import EntityFeatures, open_features
from serving.recommender import Recommender
from serving.releases import Release, load_release
from serving.settings import Settings

logger = logging.getLogger(__name__)

WARM_UP_USER = 0
"""Key that is read to warm up and to see whether the store answers; it need not exist."""
SAMPLE = 200
"""Popular Pins whose newest feature tells where a replayed log ends."""


def load_recommender(settings: Settings) -> Recommender:
    """Load release and store, answer one request, and take everything loaded out of garbage collection.

    Raises:
        ReleaseError: The release or the Feast repo must not answer requests.
    """
    started = time.perf_counter()
    release = load_release(settings.release_path, settings.threads)
    features = open_features(settings.repo_path, release.manifest.services)
    check_agreement(release.manifest, features)
    clock = make_clock(settings.as_of, release.manifest, lambda: newest_feature(release, features["pin"]))
    recommender = Recommender(release=release, features=features, clock=clock, retrieve=settings.retrieve)
    warm_up(recommender)
    gc.collect()
    gc.freeze()
    seconds = time.perf_counter() - started
    logger.info("event=release_loaded release=%s seconds=%.2f", release.manifest.release, seconds)
    return recommender


def try_to_load(settings: Settings) -> Recommender | ReleaseError:
    """The recommender, or why there is none; the server then says so instead of answering."""
    try:
        return load_recommender(settings)
    except ReleaseError as error:
        logger.error("event=release_refused reason=%s", error)
        return error


def warm_up(recommender: Recommender) -> None:
    """Run every stage once, so that the first request finds all of it loaded."""
    now = recommender.clock()
    release = recommender.release
    surface = release.manifest.surfaces[0]
    user = recommender.user(WARM_UP_USER, now)
    found = release.retriever.retrieve(user.features, recommender.retrieve, ())
    recommender.rank(user, found, surface, now)


def newest_feature(release: Release, pins: EntityFeatures) -> datetime | None:
    """Newest event timestamp among the features of popular Pins; none when the store knows none of them."""
    rows = pins.read(release.manifest.popular[ANY_SURFACE][:SAMPLE], datetime.now(UTC))
    return max((at for stamps in rows.event_timestamps.values() for at in stamps.to_pylist() if at), default=None)


def get_recommender(request: Request) -> Recommender:
    """The recommender of the app.

    Raises:
        NotReadyError: There is none.
    """
    state = request.app.state.recommender
    if isinstance(state, Recommender):
        return state
    raise NotReadyError(str(state))


Ready = Annotated[Recommender, Depends(get_recommender)]
