"""What was pushed since the day before becomes one file per view, so that a year of pushes is no million of files."""

from __future__ import annotations

from datetime import datetime

from feature_repo.contract import ENTITIES, attributes_view
from feature_repo.push.pusher import LOCK_FILE
from feature_repo.push.turns import taking_turns
from feature_repo.stores.offline.merging import merge_appended
from feature_repo.versions import VersionState
from trainers.life.consumers import views_of
from trainers.life.home import Home


def merge_pushes(home: Home, cutoff: datetime) -> int:
    """Merge the pushed rows of every view that takes any, while pushes wait; rows, moments and order stay as they are.

    Returns:
        Number of files that were merged.

    Raises:
        SnapshotError: A pushed file is damaged.
    """
    kept = [each for each in home.catalogue.versions() if each.state not in (VersionState.RETIRED, VersionState.PRUNED)]
    views = [*(view for record in kept for view in views_of(record)), *map(attributes_view, ENTITIES)]
    with taking_turns(home.repo_dir / "data" / LOCK_FILE):
        return sum(merge_appended(home.offline / view, f"{cutoff:%Y-%m-%d}") for view in views)
