"""What a consumer of an older embedding version got for rows: targets of a version that is compatible with it.

Dims: N rows, E width of the older version.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore

from feature_repo.contract import ENTITIES, EVENT_TIMESTAMP, EmbeddingVersion, join_key
from feature_repo.encoding import Array
from trainers.data.version_vectors import version_vectors
from trainers.progress import Progress


def older_vectors(
    store: FeatureStore, rows: pa.Table, version: EmbeddingVersion, progress: Progress
) -> dict[str, Array]:
    """Inputs `older_user` and `older_pin` [N, E + 1], point in time; the last element says whether there was a vector.

    Args:
        rows: `user_id`, `pin_id` and `event_timestamp`.
    """
    micros = np.asarray(pc.cast(pc.cast(rows[EVENT_TIMESTAMP], pa.timestamp("us", tz="UTC")), pa.int64()))
    found = {}
    with progress.stage(f"vectors of {version.key}", len(ENTITIES)) as stage:
        for entity in ENTITIES:
            keys = np.asarray(rows[join_key(entity)])
            found[f"older_{entity}"] = version_vectors(store, version, entity, keys, micros)
            stage.advance()
    return found
