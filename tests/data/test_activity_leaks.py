"""Nothing at or after a cut-off may change its snapshot."""

from __future__ import annotations

import dataclasses
import tempfile
from datetime import timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.activity_logs import CUTOFF, DAY, MANIFEST, Conversion, Impression, Log, build, config, days, snapshots

CUTOFFS = days(CUTOFF - DAY, 2)
SHORT = dataclasses.replace(MANIFEST, windows_days=(1, 2))

moments = st.one_of(
    st.sampled_from([CUTOFF - DAY, CUTOFF, CUTOFF - timedelta(microseconds=1), CUTOFF + timedelta(microseconds=1)]),
    st.integers(-5 * 24, 48).map(lambda hours: CUTOFF + timedelta(hours=hours)),
)
labels = st.sampled_from([None, 0, 1])


@st.composite
def logs(draw: st.DrawFn) -> Log:
    size = draw(st.integers(1, 25))
    impressions = [
        Impression(
            impression_id=i,
            at=draw(moments),
            user=draw(st.integers(1, 4)),
            pin=draw(st.integers(1, 4)),
            click=draw(labels),
            like=draw(labels),
        )
        for i in range(size)
    ]
    conversions = [
        Conversion(impression_id=shown.impression_id, at=draw(moments), user=shown.user, pin=shown.pin)
        for shown in draw(st.lists(st.sampled_from(impressions), max_size=6))
    ]
    return Log(impressions=impressions, conversions=conversions)


def _altered(log: Log) -> Log:
    """The log with every impression from the cut-off on made a positive of one user, and a new one planted."""
    impressions = [
        dataclasses.replace(row, user=1, pin=1, click=1, like=1, surface="altered") if row.at >= CUTOFF else row
        for row in log.impressions
    ]
    conversions = [dataclasses.replace(row, user=1) if row.at >= CUTOFF else row for row in log.conversions]
    planted = Impression(impression_id=999, at=CUTOFF, user=2, pin=2, click=1, like=1)
    arrived = Conversion(impression_id=999, at=CUTOFF, user=2, pin=2)
    return Log(impressions=[*impressions, planted], conversions=[*conversions, arrived])


@settings(max_examples=8, deadline=None)
@given(log=logs())
def test_snapshot_is_unchanged_when_events_from_the_cutoff_on_are_altered_or_removed(log: Log) -> None:
    removed = log.before(CUTOFF)
    variants = [log, _altered(log)]
    if removed.impressions:
        variants.append(removed)
    with tempfile.TemporaryDirectory() as folder:
        tables = []
        for i, variant in enumerate(variants):
            made = config(Path(folder) / str(i), manifest=SHORT)
            variant.write(made.event_log)
            build(made, CUTOFFS)
            tables.append(snapshots(made, CUTOFFS))
    for other in tables[1:]:
        for at, table in tables[0].items():
            assert table.equals(other[at]), at
