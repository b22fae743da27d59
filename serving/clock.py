"""The moment against which features age: the wall clock, or the end of a replayed log.

A release made from a log that ended long ago finds every feature outside max age by the wall clock, which is true but
useless. Such a release is *replayed*: time stands a day after the newest feature that the online store holds. Until
then the log could have gone on without newer features; and those of the next day, which a refresh writes while this
release still answers, may be used from that moment on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from feature_repo.release.manifest import ReleaseManifest
from serving.settings import AsOf

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]
"""Tells the moment of a request, UTC."""

DEFAULT_MAX_AGE = timedelta(hours=72)
"""Age from which a release without embeddings counts as a replay."""
REFRESH_PERIOD = timedelta(days=1)
"""Time between two days' features."""


def is_replay(manifest: ReleaseManifest) -> bool:
    """Whether the data was older than every embedding's TTL when the release was made."""
    ages = [timedelta(hours=version.ttl_hours) for version in manifest.embeddings]
    return manifest.created - manifest.data_cutoff > max(ages, default=DEFAULT_MAX_AGE)


def replayed_from(manifest: ReleaseManifest, newest: datetime | None) -> datetime:
    """Moment at which a replay stands: a day after the newest feature, at most half of the shortest TTL after it."""
    shortest = min((version.ttl_hours for version in manifest.embeddings), default=0)
    after = min(REFRESH_PERIOD, timedelta(hours=shortest) / 2) if shortest else REFRESH_PERIOD
    return (max(manifest.data_cutoff, newest or manifest.data_cutoff) + after).astimezone(UTC)


def make_clock(as_of: AsOf, manifest: ReleaseManifest, newest: Callable[[], datetime | None]) -> Clock:
    """Clock of a release.

    Args:
        as_of: The operator's choice.
        manifest: Release that is served.
        newest: Newest event timestamp in the online store; called only for a replay.
    """
    if as_of == "wall" or (as_of == "auto" and not is_replay(manifest)):
        return lambda: datetime.now(UTC)
    moment = as_of.astimezone(UTC) if isinstance(as_of, datetime) else replayed_from(manifest, newest())
    logger.warning("event=clock_stands as_of=%s release=%s", moment.isoformat(), manifest.release)
    return lambda: moment
