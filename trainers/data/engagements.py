"""Who had engaged with which Pin before a moment, as sparse matrices: all that collaborative filtering reads.

Dims: A users with an engagement, U users of a period, P Pins of its corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from scipy.sparse import csr_matrix

from feature_repo.contract import EVENT_TIMESTAMP
from trainers.data.connection import literal, moment, quote
from trainers.data.event_log import EventLog
from trainers.data.retrieval_data import Keys, RetrievalPeriod

_BEGINNING = datetime(1970, 1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Engagements:
    """Engagements before a period, 1 where a user engaged with a Pin of the period's corpus."""

    everyone: csr_matrix
    """All users with such an engagement [A, P]."""
    queries: csr_matrix
    """The users of the period [U, P]; an empty row for one without any."""


def read_engagements(log: EventLog, period: RetrievalPeriod, *, histories: bool) -> Engagements:
    """Engagements of the CTR task before a period.

    Args:
        histories: Count the Pins of the first long history too, where its row could be used before the period.
    """
    pairs = log.query(f"SELECT DISTINCT user_id, pin_id FROM ({_pairs(log, period.start, histories)})")
    users, pins = (np.asarray(pairs[name], np.int64) for name in ("user_id", "pin_id"))
    known = np.isin(pins, period.pin_ids)
    users, positions = users[known], np.searchsorted(period.pin_ids, pins[known])
    user_ids, rows = np.unique(users, return_inverse=True)
    everyone = _matrix(rows, positions, (len(user_ids), len(period.pin_ids)))
    return Engagements(everyone=everyone, queries=_rows_of(everyone, user_ids, period.user_ids))


def _pairs(log: EventLog, end: datetime, histories: bool) -> str:
    label = quote(log.spec.task(log.spec.ctr_task).label)
    period = log.impressions_sql(_BEGINNING.replace(tzinfo=end.tzinfo), end)
    query = f"SELECT user_id, pin_id FROM ({period}) WHERE {label} = 1"
    path = log.history_path(log.spec.histories[0]) if histories and log.spec.histories else None
    if path is None:
        return query
    usable = f"SELECT user_id, unnest(pin_ids) AS pin_id FROM read_parquet({literal(path)}) "
    return f"{query} UNION ALL {usable} WHERE {EVENT_TIMESTAMP} < {moment(end)}"


def _matrix(rows: Keys, columns: Keys, shape: tuple[int, int]) -> csr_matrix:
    ones = np.ones(len(rows), np.float32)
    return csr_matrix((ones, (rows.astype(np.int32), columns.astype(np.int32))), shape=shape)


def _rows_of(everyone: csr_matrix, user_ids: Keys, wanted: Keys) -> csr_matrix:
    """The rows of these users, empty where there is none."""
    found = np.flatnonzero(np.isin(wanted, user_ids))
    picked = everyone[np.searchsorted(user_ids, wanted[found])].tocoo()
    return _matrix(found[picked.row], picked.col, (len(wanted), everyone.shape[1]))
