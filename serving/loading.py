"""From a folder to a recommender: verified, in agreement with the Feast repo, and warm."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from feature_repo.release.agreement import check_agreement
from feature_repo.release.manifest import ANY_SURFACE, ReleaseError, ReleaseManifest
from serving.clock import make_clock
from serving.entity_ids import load_entity_ids
from serving.fresh_pins import FreshPins
from serving.online_features import EntityFeatures, open_features
from serving.recommender import Recommender
from serving.releases import Release, load_release
from serving.settings import Settings

logger = logging.getLogger(__name__)

WARM_UP_USER = 0
"""Key that is read to warm up and to see whether the store answers; it need not exist."""
SAMPLE = 200
"""Popular Pins whose newest feature tells where a replayed log ends."""


def load_recommender(
    settings: Settings,
    directory: Path,
    *,
    manifest_sha256: str | None = None,
    spaces: Mapping[str, str | None] | None = None,
) -> Recommender:
    """Load a release and its online features, and answer one request with them.

    Args:
        directory: Folder of the release.
        manifest_sha256: Digest of the manifest in the catalogue; unchecked when not given.
        spaces: Space id of each embedding version in the catalogue; unchecked when not given.

    Raises:
        ReleaseError: The release or the Feast repo must not answer requests.
    """
    started = time.perf_counter()
    release = load_release(directory, settings.threads, manifest_sha256, settings.cache_dir)
    if spaces is not None:
        check_spaces(release.manifest, spaces)
    features = open_features(settings.repo_path, release.manifest.services)
    check_agreement(release.manifest, {entity: each.references for entity, each in features.items()})
    clock = make_clock(settings.as_of, release.manifest, lambda: newest_feature(release, features["pin"]))
    data, index = settings.repo_path / "data", release.retriever.index
    fresh = FreshPins(directory, data, release.manifest, index, features["pin"], clock)
    recommender = Recommender(
        release=release,
        features=features,
        clock=clock,
        retrieve=settings.retrieve,
        fresh=fresh,
        ids=load_entity_ids(directory, release.manifest),
    )
    warm_up(recommender)
    seconds = time.perf_counter() - started
    logger.info("event=release_loaded release=%s seconds=%.2f", release.manifest.release, seconds)
    return recommender


def check_spaces(manifest: ReleaseManifest, spaces: Mapping[str, str | None]) -> None:
    """Pass when the vectors in the stores are in the spaces that the release was trained on.

    Raises:
        ReleaseError: A version is unknown, or in another space.
    """
    for key, space_id in manifest.spaces().items():
        if spaces.get(key) != space_id:
            raise ReleaseError(
                f"release {manifest.release} must read vectors of the space it was trained on "
                f"({key}: {space_id}, the catalogue has {spaces.get(key) or 'none'}); promote another release"
            )


def warm_up(recommender: Recommender) -> None:
    """Run every stage once, so that the first request finds all of it loaded."""
    now = recommender.clock()
    release = recommender.release
    surface = release.manifest.surfaces[0]
    user = recommender.user(WARM_UP_USER, now)
    found = release.retriever.retrieve(user.features, recommender.retrieve, ())
    recommender.rank(user, found.pin_ids, surface, now)


def newest_feature(release: Release, pins: EntityFeatures) -> datetime | None:
    """Newest event timestamp among the features of popular Pins; none when the store knows none of them."""
    rows = pins.read(release.manifest.popular[ANY_SURFACE][:SAMPLE], datetime.now(UTC))
    return max((at for stamps in rows.event_timestamps.values() for at in stamps.to_pylist() if at), default=None)
