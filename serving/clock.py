"""The moment against which features age: the wall clock, or the end of a replayed log.

A release made from a log that ended long ago finds every feature outside max age by the wall clock, which is true but
useless. Such a release is *replayed*: time stands at the newest feature that the online store holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from serving.artifacts import ReleaseManifest
from serving.settings import AsOf

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]
"""Tells the moment of a request, UTC."""

DEFAULT_MAX_AGE = timedelta(hours=72)
"""Age from which a release without embeddings counts as a replay."""


def is_replay(manifest: ReleaseManifest) -> bool:
    """Whether the data was older than every embedding's TTL when the release was made."""
    ages = [timedelta(hours=version.ttl_hours) for version in manifest.embeddings]
    return manifest.created - manifest.data_cutoff > max(ages, default=DEFAULT_MAX_AGE)


def make_clock(as_of: AsOf, manifest: ReleaseManifest, newest: Callable[[], datetime | None]) -> Clock:
    """Clock of a release.

    Args:
        as_of: The operator's choice.
        manifest: Release that is served.
        newest: Newest event timestamp in the online store; called only for a replay.
    """
    if as_of == "wall" or (as_of == "auto" and not is_replay(manifest)):
        return lambda: datetime.now(UTC)
    if isinstance(as_of, datetime):
        moment = as_of.astimezone(UTC)
    else:
        moment = max(manifest.data_cutoff, newest() or manifest.data_cutoff).astimezone(UTC)
    logger.warning("event=clock_stands as_of=%s release=%s", moment.isoformat(), manifest.release)
    return lambda: moment
