"""Titles of Pins, read by themselves."""

from __future__ import annotations

from datetime import datetime

from feature_repo.contract import attributes_view
from feature_repo.release.agreement import title_column
from serving.answering import Degraded
from serving.deadlines import Deadline
from serving.recommender import Recommender
from serving.store_guard import StoreDownError
from serving.terms import Keys

TITLES = "titles"


def read_titles(
    recommender: Recommender, pin_ids: Keys, now: datetime, deadline: Deadline
) -> tuple[list[str | None], Degraded | None]:
    """Titles of Pins in their order, null where there is none; and why they could not be read."""
    manifest, nothing = recommender.release.manifest, [None] * len(pin_ids)
    column = title_column(manifest)
    if column is None or len(pin_ids) == 0:
        return [*nothing], None
    try:
        with deadline.reads():
            reference = f"{attributes_view('pin')}:{manifest.pin_title}"
            rows = recommender.features["pin"].read(pin_ids, now, [reference])
    except StoreDownError as error:
        return [*nothing], Degraded(reason=error.reason, lacks=TITLES, text=str(error))
    return [None if title is None else str(title) for title in rows.features[column].to_pylist()], None
