"""Retrieval job whose result is a stream of Arrow tables, and only on request a table in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd
import pyarrow as pa
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage

from feature_repo.stores.offline.pages import rechunk
from feature_repo.stores.offline.snapshots import local_source, parquet_files, source_path
from feature_repo.stores.offline.write import write_tables
from feature_repo.stores.prefetch import prefetch

_WHOLE_BLOCK_BYTES = 1 << 30
"""Memory of the blocks that a result held whole is made of."""


class Query(Protocol):
    """What a job runs: a `Join` or a `Pull`."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of the result."""

    def block_rows(self, max_bytes: int) -> int:
        """Rows that take at most about `max_bytes`."""

    def blocks(self, num_rows: int, first_row: int = 0) -> Iterator[pa.Table]:
        """The result from a row on, in tables of at most `num_rows`."""


class AsofRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """A query that runs when its result is asked for; run again, it gives the same rows in the same order."""

    def __init__(
        self,
        query: Query,
        repo_path: Path,
        block_bytes: int,
        full_feature_names: bool = False,
        on_demand_feature_views: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._query = query
        self._repo_path = repo_path
        self._block_bytes = block_bytes
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = list(on_demand_feature_views)
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are named `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Views that Feast computes from the result."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Feature references, keys and time range of the entity rows."""
        return self._metadata

    def to_record_batches(self, batch_rows: int | None = None, first_row: int = 0) -> pa.RecordBatchReader:
        """The result as a stream, on-demand features included; memory does not grow with its length.

        On-demand views are computed batch by batch, so one that looks at more than its own row needs `to_arrow`.

        Args:
            batch_rows: Rows of a batch; as many as fit in the store's `block_mb` when none is given.
            first_row: Where to begin, for a reader that goes on after an interruption.

        Raises:
            ValueError: `batch_rows` is not positive or `first_row` is negative.
        """
        if batch_rows is not None and batch_rows < 1:
            raise ValueError(f"batch_rows must be at least 1 (got {batch_rows})")
        if first_row < 0:
            raise ValueError(f"first_row must be at least 0 (got {first_row})")
        block_rows = self._query.block_rows(self._block_bytes)
        tables = self._tables(max(block_rows, batch_rows or 0), first_row)
        first = next(tables, None)
        schema = self._query.schema if first is None else first.schema
        batches = _batches(schema, _after(first, tables), batch_rows or block_rows)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def to_parquet(self, path: Path | str, *, allow_overwrite: bool = False) -> int:
        """Write the result, on-demand features included, as one file, in one step and never holding it whole.

        Returns:
            Number of rows.

        Raises:
            FileExistsError: There is a file, and `allow_overwrite` is false.
            OSError: The disk is full; nothing is left of the file.
        """
        target = Path(path)
        if target.exists() and not allow_overwrite:
            raise FileExistsError(f"{target} must not exist yet (got one); pass allow_overwrite=True to replace it")
        reader = self.to_record_batches()
        with prefetch(pa.Table.from_batches([batch]) for batch in reader) as tables:
            return write_tables(target, reader.schema, tables)

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:  # noqa: ARG002
        """Write the result, on-demand features included, as the one file of a saved dataset, or of its folder.

        Raises:
            SavedDatasetLocationAlreadyExists: There is one, and `allow_overwrite` is false.
            ValueError: The folder holds files that are no saved dataset of this store.
        """
        path = source_path(local_source(storage.to_data_source(), "saved dataset"), self._repo_path)
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        self.to_parquet(_file_of(path), allow_overwrite=allow_overwrite)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002
        blocks = self._query.blocks(self._query.block_rows(_WHOLE_BLOCK_BYTES))
        return pa.concat_tables([self._query.schema.empty_table(), *blocks])

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def _tables(self, num_rows: int, first_row: int) -> Iterator[pa.Table]:
        for block in self._query.blocks(num_rows, first_row):
            yield self._with_on_demand(block) if self._on_demand_feature_views else block

    def _with_on_demand(self, block: pa.Table) -> pa.Table:
        """Feast's own code computes on-demand views, of a job that holds just this block."""
        return _BlockJob(block, self).to_arrow()


class _BlockJob(AsofRetrievalJob):
    def __init__(self, block: pa.Table, job: AsofRetrievalJob) -> None:
        super().__init__(
            job._query, job._repo_path, 0, job.full_feature_names, job.on_demand_feature_views, job.metadata
        )
        self._block = block

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002
        return self._block


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    target = path / "saved-dataset.parquet"
    others = [file.name for file in parquet_files(path) if file != target]
    if others:
        raise ValueError(f"{path} must hold no other parquet files (got {others[:3]}); name a folder of its own")
    return target


def _after(first: pa.Table | None, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    if first is not None:
        yield first
    yield from tables


def _batches(schema: pa.Schema, tables: Iterator[pa.Table], num_rows: int) -> Iterator[pa.RecordBatch]:
    for table in rechunk((table.cast(schema) for table in tables), num_rows):
        yield from table.combine_chunks().to_batches()
