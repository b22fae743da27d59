"""Conversions that name a user and a Pin, but no impression: each goes to the last impression that can have led to it.

Last-touch attribution: the latest impression of the same Pin to the same user, at most the kind's attribution window
before the conversion. What no impression led to keeps its place without one, and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainers.data.columns import Column
from trainers.data.connection import literal
from trainers.data.dataset import Conversion
from trainers.data.source_files import SourceTable

_MOMENT = "TRY_CAST(event_timestamp AS TIMESTAMPTZ)"


def is_attributed(table: SourceTable) -> bool:
    """Whether conversions come with user and Pin, and name no impression."""
    return {"user_id", "pin_id"} <= set(table.columns) and "impression_id" not in table.columns


def attributed_columns(columns: Sequence[Column], impression: Sequence[Column]) -> tuple[Column, ...]:
    """Columns to read of such conversions: user and Pin in place of the impression.

    Args:
        columns: Columns of conversions.
        impression: Columns of impressions.
    """
    keys = [column for column in impression if column.name in ("user_id", "pin_id")]
    return (*keys, *(column for column in columns if column.name != "impression_id"))


def attributed(conversions: str, impressions: str, kinds: Sequence[Conversion]) -> str:
    """A query for conversions with their impressions, in the order of the conversions.

    Args:
        conversions: Query with `user_id`, `pin_id`, `event_timestamp`, `kind` and perhaps `value`.
        impressions: Query with `impression_id`, `user_id`, `pin_id` and `event_timestamp`.
    """
    windows = " ".join(f"WHEN {literal(each.kind)} THEN INTERVAL {each.attribution_days} DAY" for each in kinds)
    numbered = f"(SELECT *, {_MOMENT} AS moment_, row_number() OVER () AS nth_ FROM ({conversions}))"
    shown = f"(SELECT impression_id, user_id, pin_id, {_MOMENT} AS moment_ FROM ({impressions}))"
    inside = f"i.moment_ >= c.moment_ - CASE c.kind {windows} END"
    return (
        f"FROM (SELECT CASE WHEN {inside} THEN i.impression_id END AS impression_id, "
        f"c.* EXCLUDE (user_id, pin_id, moment_, nth_) FROM {numbered} AS c ASOF LEFT JOIN {shown} AS i "
        "ON c.user_id::VARCHAR = i.user_id::VARCHAR AND c.pin_id::VARCHAR = i.pin_id::VARCHAR "
        "AND c.moment_ >= i.moment_ ORDER BY c.nth_)"
    )
