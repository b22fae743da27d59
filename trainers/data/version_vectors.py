"""Vectors of an embedding version for entities at moments, read point in time through Feast.

They are targets for a version that is trained to be compatible with it, and what experiments put in the place of a
ranker's own vectors.
Dims: N rows, E width of a vector.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from feast import FeatureStore

from feature_repo.contract import (
    EMBEDDING_FIELD,
    EVENT_TIMESTAMP,
    EmbeddingVersion,
    embedding_view,
    feature_reference,
    join_key,
)
from feature_repo.encoding import Array, InputSpec, VectorInput, encode

CHUNK_ROWS = 200_000
"""Rows joined at once: bounds the memory of a query."""

Keys = npt.NDArray[np.int64]


def version_vectors(
    store: FeatureStore, version: EmbeddingVersion, entity: str, keys: Keys, event_micros: Keys
) -> Array:
    """Vectors [N, E + 1]: what a consumer of the version would have got for each key at its moment.

    The last element is 1 where there was a vector and 0, like all others, where it was missing or outside max age.

    Args:
        keys: Entity key of each row.
        event_micros: Moment of each row, microseconds since the epoch.

    Raises:
        ValueError: There are not as many keys as moments.
    """
    if keys.shape != event_micros.shape:
        raise ValueError(f"every key needs a moment (got {len(keys)} keys and {len(event_micros)} moments)")
    view = embedding_view(entity, version.model, version.version)
    column = feature_reference(view, EMBEDDING_FIELD)
    spec = InputSpec(side="version", vectors=(VectorInput(column=column, dim=version.dim),))
    parts = []
    for start in range(0, len(keys), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        asked = _entity_frame(entity, keys[rows], event_micros[rows])
        job = store.get_historical_features(asked, [f"{view}:{EMBEDDING_FIELD}"], full_feature_names=True)
        frame = job.to_arrow()
        parts.append(encode(spec, frame)["version_vector_0"])
    return np.concatenate(parts) if parts else np.zeros((0, version.dim + 1), np.float32)


def _entity_frame(entity: str, keys: Keys, event_micros: Keys) -> pd.DataFrame:
    when = pa.array(event_micros, pa.timestamp("us", tz="UTC"))
    table = pa.table({join_key(entity): pa.array(keys, pa.int64()), EVENT_TIMESTAMP: when})
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame
