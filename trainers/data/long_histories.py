"""Long user histories as inputs of retrieval: lists of Pins from other sources than the log, oldest first.

Rows get them point in time through Feast, as of each row's own moment.
Dims: N rows, U users, L longest history.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore

from feature_repo.contract import (
    EVENT_TIMESTAMP,
    HISTORY_SERVICE,
    RepoManifest,
    feature_reference,
    history_view,
    join_key,
)
from feature_repo.encoding import Array, IdInput, InputSpec
from trainers.data.event_log import EventLog
from trainers.data.examples import Examples, encode_sides
from trainers.data.frames import point_in_time_frame

Keys = npt.NDArray[np.int64]


def with_histories(user: InputSpec, manifest: RepoManifest, *, buckets: int, length: int) -> InputSpec:
    """The inputs of the user side with every long history as one more id list; its other inputs keep their names.

    Args:
        buckets: Of the hashed Pin ids, 0 to leave the histories out.
        length: Newest Pins that are read of each.
    """
    if not buckets or not length:
        return user
    columns = [feature_reference(history_view(name), "pin_ids") for name in manifest.histories]
    return replace(
        user, ids=(*user.ids, *(IdInput(column=column, buckets=buckets, length=length) for column in columns))
    )


def history_ids(user: InputSpec) -> dict[str, IdInput]:
    """The long histories among the inputs of the user side, by input name."""
    prefix = history_view("")
    return {f"{user.side}_id_{i}": item for i, item in enumerate(user.ids) if item.column.startswith(prefix)}


def history_inputs(store: FeatureStore, user: InputSpec, user_ids: Keys, event_micros: Keys) -> dict[str, Array]:
    """Inputs with the long histories of users as of these moments, [N, L] each; empty without histories.

    Args:
        user: Inputs of the user side, `with_histories`.
        event_micros: Microseconds since the epoch [N].
    """
    read = history_ids(user)
    if not read:
        return {}
    when = pa.array(event_micros, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    rows = pa.table({join_key("user"): pa.array(user_ids, pa.int64()), EVENT_TIMESTAMP: when})
    frame = point_in_time_frame(store, rows, HISTORY_SERVICE)
    encoded = encode_sides([InputSpec(side=user.side, ids=tuple(read.values()))], frame)
    return {name: encoded[f"{user.side}_id_{i}"] for i, name in enumerate(read)}


def users_with_histories(log: EventLog, before: datetime) -> Keys:
    """Users with a long history that could be used before a moment [U], sorted."""
    found = [np.empty(0, np.int64)]
    for path in filter(None, (log.history_path(name) for name in log.spec.histories)):
        table = pq.read_table(path, columns=[join_key("user"), EVENT_TIMESTAMP])
        usable = pc.less(table[EVENT_TIMESTAMP], pa.scalar(before, table.schema.field(EVENT_TIMESTAMP).type))
        found.append(np.asarray(table.filter(usable)[join_key("user")], np.int64))
    return np.unique(np.concatenate(found))


def read_histories(log: EventLog, store: FeatureStore, user: InputSpec, before: datetime) -> Examples:
    """The long histories of all users, as they stood when training began [U]."""
    user_ids = users_with_histories(log, before)
    moments = np.full(len(user_ids), round(before.timestamp() * 1_000_000))
    inputs = history_inputs(store, user, user_ids, moments) if len(user_ids) else {}
    return Examples(inputs=inputs, labels=np.empty((len(user_ids) if inputs else 0, 0), np.float32))
