"""Queries, candidates and engaged Pins of a period, read through Feast as they stood when the period began.

Dims: U users, P Pins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore

from feature_repo.contract import EVENT_TIMESTAMP, activity_view, join_key
from feature_repo.encoding import InputSpec, hash_ids
from trainers.data.connection import quote
from trainers.data.event_log import EventLog
from trainers.data.examples import Examples, encode_sides
from trainers.data.frames import point_in_time_frame

Keys = npt.NDArray[np.int64]
PIN_BUCKET = "pin_id_0"
"""Input of a Pin: its own bucket, hashed like the Pins in a user's sequences; absent where there are none. Named as
`encode` names the first key of the Pin side, so that a released candidate tower needs its encoder alone."""
_BEGINNING = datetime(1970, 1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalPeriod:
    """Users to answer in a period and the corpus to answer from, with features as of its start."""

    start: datetime
    """First moment of the period."""
    user_ids: Keys
    """Users with a new engagement in the period [U], sorted."""
    users: Examples
    """Their inputs."""
    pin_ids: Keys
    """The corpus [P], sorted."""
    pins: Examples
    """Its inputs."""
    relevant: list[Keys]
    """Positions in the corpus of the Pins that each user newly engaged with in the period."""
    seen: list[Keys]
    """Positions of the Pins that each user had met before; none where Pins are shown again after an engagement."""
    log_popularity: dict[int, npt.NDArray[np.float32]]
    """Log share [P] of the engagements in the last so many days before the period."""

    def at_most(self, num_users: int) -> RetrievalPeriod:
        """The period with no more than so many of its users, evenly spaced by key."""
        step = -(-len(self.user_ids) // num_users)
        if step <= 1:
            return self
        kept = np.arange(0, len(self.user_ids), step)
        return replace(
            self,
            user_ids=self.user_ids[kept],
            users=self.users.take(kept),
            relevant=self.relevant[::step],
            seen=self.seen[::step],
        )


def with_pin_bucket(examples: Examples, pin_ids: Keys, user: InputSpec) -> Examples:
    """The rows with the bucket of each row's Pin, as the sequences of the user side hash it."""
    buckets = next((item.buckets for item in user.ids if item.length), 0)
    return examples.with_inputs({PIN_BUCKET: hash_ids(pin_ids, buckets).astype(np.int32)}) if buckets else examples


class RetrievalReader:
    """Reads periods of one event log with the inputs of one retrieval model."""

    def __init__(
        self, log: EventLog, store: FeatureStore, offline: Path, service: str, user: InputSpec, pin: InputSpec
    ):
        self._log, self._store, self._offline, self._service = log, store, offline, service
        self._user, self._pin = user, pin

    def period(self, start: datetime, end: datetime, popularity_days: tuple[int, ...]) -> RetrievalPeriod:
        """The period from `start` to `end`."""
        pin_ids = self.corpus(start)
        engaged = self._engaged(start, end)
        repeats = self._log.spec.repeats
        before = {} if repeats else self._met_before(start)
        known = {int(pin): position for position, pin in enumerate(pin_ids)}
        user_ids, relevant, seen = [], [], []
        for user, pins in engaged.items():
            met = before.get(user, set())
            fresh = [known[pin] for pin in pins if pin in known and pin not in met]
            if fresh:
                user_ids.append(user)
                relevant.append(np.array(sorted(set(fresh))))
                seen.append(np.array(sorted(known[pin] for pin in met if pin in known), dtype=np.int64))
        users = np.array(user_ids, dtype=np.int64)
        return RetrievalPeriod(
            start=start,
            user_ids=users,
            users=self.examples("user", users, start),
            pin_ids=pin_ids,
            pins=self.examples("pin", pin_ids, start),
            relevant=relevant,
            seen=seen,
            log_popularity={days: self.log_popularity(pin_ids, start, days) for days in popularity_days},
        )

    def corpus(self, cutoff: datetime) -> Keys:
        """Pins that can be recommended at a cut-off: those in the catalogue, and those with activity."""
        snapshot = self._offline / activity_view("pin") / f"date={cutoff:%Y-%m-%d}.parquet"
        active = np.asarray(pq.read_table(snapshot, columns=["pin_id"])["pin_id"])
        if self._log.pins_path is None:
            return np.unique(active)
        catalogue = pq.read_table(self._log.pins_path, columns=["pin_id", EVENT_TIMESTAMP])
        when = catalogue[EVENT_TIMESTAMP].to_numpy()
        listed = np.asarray(catalogue["pin_id"])[when < np.datetime64(cutoff.replace(tzinfo=None), "us")]
        return np.unique(np.concatenate([active, listed]))

    def examples(self, entity: str, keys: Keys, cutoff: datetime) -> Examples:
        """Inputs of entities as they could be used when the snapshot of a cut-off was published."""
        usable_from = cutoff + self._log.spec.publish_delay
        when = pa.repeat(pa.scalar(usable_from, pa.timestamp("us", tz="UTC")), len(keys))
        rows = pa.table({join_key(entity): pa.array(keys, pa.int64()), EVENT_TIMESTAMP: when})
        other = "pin" if entity == "user" else "user"
        # The service spans both entities: the other key is null, and its features come back null.
        rows = rows.append_column(join_key(other), pa.nulls(len(keys), pa.int64()))
        frame = point_in_time_frame(self._store, rows, self._service)
        spec = self._user if entity == "user" else self._pin
        examples = Examples(inputs=encode_sides([spec], frame), labels=np.empty((len(keys), 0), np.float32))
        return with_pin_bucket(examples, keys, self._user) if entity == "pin" else examples

    def log_popularity(self, pin_ids: Keys, end: datetime, days: int) -> npt.NDArray[np.float32]:
        """Log share of each Pin among the engagements of the days before a moment, smoothed by a tenth of one."""
        label = quote(self._log.spec.task(self._log.spec.ctr_task).label)
        period = self._log.impressions_sql(end - timedelta(days=days), end)
        counts = self._log.query(f"SELECT pin_id, count(*) AS n FROM ({period}) WHERE {label} = 1 GROUP BY pin_id")
        shares = np.full(len(pin_ids), 0.1, np.float64)
        positions = np.searchsorted(pin_ids, np.asarray(counts["pin_id"])).clip(max=max(len(pin_ids) - 1, 0))
        known = pin_ids[positions] == np.asarray(counts["pin_id"])
        shares[positions[known]] += np.asarray(counts["n"])[known]
        log_shares: npt.NDArray[np.float32] = np.log(shares / shares.sum()).astype(np.float32)
        return log_shares

    def _engaged(self, start: datetime, end: datetime) -> dict[int, list[int]]:
        label = quote(self._log.spec.task(self._log.spec.ctr_task).label)
        query = (
            "SELECT user_id, list(DISTINCT pin_id ORDER BY pin_id) AS pins "
            f"FROM ({self._log.impressions_sql(start, end)}) WHERE {label} = 1 GROUP BY user_id ORDER BY user_id"
        )
        table = self._log.query(query)
        return dict(zip(table["user_id"].to_pylist(), table["pins"].to_pylist(), strict=True))

    def _met_before(self, start: datetime) -> dict[int, set[int]]:
        beginning = _BEGINNING.replace(tzinfo=start.tzinfo)
        period = self._log.impressions_sql(beginning, start)
        table = self._log.query(f"SELECT user_id, list(DISTINCT pin_id) AS pins FROM ({period}) GROUP BY user_id")
        return {
            user: set(pins) for user, pins in zip(table["user_id"].to_pylist(), table["pins"].to_pylist(), strict=True)
        }
