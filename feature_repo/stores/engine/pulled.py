"""The newest rows of a view as any Feast offline store hands them out: pulled whole, then cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView, RepoConfig
from feast.infra.offline_stores.offline_store import OfflineStore

from feature_repo.stores.engine.rows import Layout, digest, with_entityless_key
from feature_repo.stores.offline.arrow_types import conform

_DIGEST_ROWS = 50_000


class PulledRows:
    """What `pull_latest_from_table_or_query` of an offline store answers, ordered by join keys.

    The store decides how much memory its answer takes; the chunks made of it are bounded. Stores promise no order, so
    rows are taken by their keys', and the fingerprint is one of the values themselves.
    """

    def __init__(
        self, store: OfflineStore, config: RepoConfig, view: FeatureView, layout: Layout, start: datetime, end: datetime
    ) -> None:
        self._layout = layout
        job = store.pull_latest_from_table_or_query(
            config=config,
            data_source=view.batch_source,
            join_key_columns=layout.source_keys,
            feature_name_columns=layout.source_features,
            timestamp_field=layout.timestamp_column,
            created_timestamp_column=layout.created_column or None,
            start_date=start,
            end_date=end,
        )
        where = f"feature view {view.name}"
        pulled = job.to_arrow()
        absent = sorted(set(layout.columns) - set(pulled.column_names))
        if absent:
            raise ValueError(f"{where} must have columns {list(layout.columns)} in its source (lacks {absent})")
        self._table = conform(pulled, layout.typed(pulled.schema), where)
        keys = [(layout.columns[column].name, "ascending") for column in layout.source_keys]
        self._order = pc.sort_indices(self._table, sort_keys=keys) if keys else pa.array(range(self._table.num_rows))

    @property
    def num_rows(self) -> int:
        """Number of keys."""
        return int(self._table.num_rows)

    @property
    def fingerprint(self) -> str:
        """Of every value, since a table of a warehouse has no size and time to go by."""
        parts: list[bytes | str] = [self._layout.describe()]
        for start in range(0, self.num_rows, _DIGEST_ROWS):
            batches = self._take(start, _DIGEST_ROWS).combine_chunks().to_batches()
            parts += [digest(batch.serialize().to_pybytes()) for batch in batches]
        return digest(*parts)

    @property
    def doubtful(self) -> list[str]:
        """None of them: the rows have their types."""
        return []

    def check_unchanged(self) -> None:
        """Nothing to see: the rows are held."""

    def tables(self, names: Sequence[str], start: int, chunk_rows: int) -> Iterator[pa.Table]:
        """Columns `names` of the rows from `start` on."""
        for first in range(start, self.num_rows, chunk_rows):
            yield with_entityless_key(self._take(first, chunk_rows), self._layout, names)

    def _take(self, start: int, rows: int) -> pa.Table:
        return self._table.take(self._order.slice(start, rows))
