"""Feast compute engine that materializes in bounded chunks, and goes on where a killed run stopped.

`batch_engine: {type: feature_repo.stores.engine.compute_engine.ArrowComputeEngine}` in feature_store.yaml. Every row of
a view is checked before its first chunk is written; then chunk after chunk goes to the online store and into a journal.
Writes are order-safe and may be repeated, so a chunk that a kill cut short is written again.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast import BatchFeatureView, Entity, FeatureView
from feast.infra.common.materialization_job import MaterializationJob, MaterializationJobStatus, MaterializationTask
from feast.infra.common.retrieval_task import HistoricalRetrievalTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from pydantic import Field, StrictStr

from feature_repo.stores.engine.checks import check_finite, check_rows, finite_fields, required_vectors, vector_widths
from feature_repo.stores.engine.journal import Journal, exclusive
from feature_repo.stores.engine.pulled import PulledRows
from feature_repo.stores.engine.rows import Layout, NewestRows, digest, layout_of
from feature_repo.stores.engine.snapshots import SnapshotRows
from feature_repo.stores.engine.writer import ChunkWriter, LostRowsError
from feature_repo.stores.offline.asof_store import AsofOfflineStore, Size, engine_of
from feature_repo.stores.prefetch import prefetch

logger = logging.getLogger(__name__)

_SCALAR_BYTES, _ELEMENT_BYTES, _LEAST_ROWS = 16, 4, 1_000


class ArrowComputeEngineConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """`batch_engine` section of feature_store.yaml."""

    type: StrictStr = "feature_repo.stores.engine.compute_engine.ArrowComputeEngine"
    chunk_mb: int = Field(default=64, ge=1)
    """Size of the features that are written, and held, at a time."""
    chunk_rows: int | None = Field(default=None, ge=1)
    """The same as a number of rows."""
    journal_directory: StrictStr = "data/materialize"
    """Folder of journals and locks, relative to the feature repo."""
    memory_limit: Size = "200MB"
    """Memory for choosing the newest rows by keys and times; above it DuckDB spills to the temporary folder."""


class ArrowComputeEngine(ComputeEngine):  # type: ignore[misc]
    """Materializes plain batch feature views itself, and leaves views with transformations to Feast's local engine."""

    def __init__(self, *, type: str | None = None, **options: Any) -> None:
        del type
        passed = {name: options.pop(name) for name in ("repo_config", "offline_store", "online_store")}
        super().__init__(**passed)
        self._options = ArrowComputeEngineConfig(**options)
        self._local = LocalComputeEngine(backend="pandas", **passed)

    def update(
        self,
        project: str,
        views_to_delete: Sequence[Any],
        views_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
    ) -> None:
        """Forget unfinished materializations of views that are deleted."""
        del views_to_keep, entities_to_delete, entities_to_keep
        self._forget(project, views_to_delete)

    def teardown_infra(self, project: str, fvs: Sequence[Any], entities: Sequence[Entity]) -> None:
        """Forget unfinished materializations."""
        del entities
        self._forget(project, fvs)

    def get_historical_features(self, registry: BaseRegistry, task: HistoricalRetrievalTask) -> RetrievalJob:
        """Features of one view for entity rows, from the offline store."""
        view = task.feature_view
        if not is_plain(view):
            return self._local.get_historical_features(registry, task)
        return self.offline_store.get_historical_features(
            config=self.repo_config,
            feature_views=[view],
            feature_refs=[f"{view.projection.name_to_use()}:{field.name}" for field in view.features],
            entity_df=task.entity_df,
            registry=registry,
            project=task.project,
            full_feature_names=task.full_feature_name,
        )

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any) -> MaterializationJob:
        if not is_plain(task.feature_view):
            return self._local._materialize_one(registry, task, **kwargs)
        job_id = f"{task.feature_view.name}-{task.start_time}-{task.end_time}"
        try:
            self._materialize_view(task)
        except Exception as error:
            # Feast raises it, and records no interval.
            return LocalMaterializationJob(job_id, MaterializationJobStatus.ERROR, error)
        finally:
            # Arrow keeps the memory of past chunks; a long-lived process must not hold it between views.
            pa.default_memory_pool().release_unused()
            # Feast writes the whole registry next: what others recorded meanwhile must be in it.
            registry.refresh(task.project)
        return LocalMaterializationJob(job_id, MaterializationJobStatus.SUCCEEDED)

    def _materialize_view(self, task: MaterializationTask) -> None:
        view = task.feature_view
        if not view.online:
            return
        layout = layout_of(view)
        path = self._journal_path(task.project, view.name)
        with exclusive(path.with_suffix(".lock"), view.name):
            rows = self._newest_rows(task, layout)
            journal = Journal(path, self._fingerprint(view, rows))
            run = _Run(view, layout, rows, journal, ChunkWriter(self.online_store, self.repo_config, view))
            chunk_rows = self._chunk_rows(view)
            run.prepare(chunk_rows)
            with _progress(task, rows.num_rows, journal.rows) as advance:
                run.write(chunk_rows, advance)
            journal.remove()
        logger.info("materialized view=%s rows=%d", view.name, rows.num_rows)

    def _newest_rows(self, task: MaterializationTask, layout: Layout) -> NewestRows:
        view, start, end = task.feature_view, task.start_time, task.end_time
        if not isinstance(self.offline_store, AsofOfflineStore):
            return PulledRows(self.offline_store, self.repo_config, view, layout, start, end)
        limits = replace(engine_of(self.repo_config), memory_limit=self._options.memory_limit)
        return SnapshotRows(view, layout, self._repo(), limits, start, end)

    def _fingerprint(self, view: FeatureView, rows: NewestRows) -> str:
        checks = f"{vector_widths(view)} {sorted(required_vectors(view))} {self._chunk_rows(view)}"
        return digest(rows.fingerprint, checks, self.repo_config.online_store.model_dump_json())

    def _chunk_rows(self, view: FeatureView) -> int:
        """Rows of a chunk, by the declared widths of vectors and a guess for the rest."""
        if self._options.chunk_rows is not None:
            return self._options.chunk_rows
        elements = sum(vector_widths(view).values())
        row_bytes = _SCALAR_BYTES * (1 + len(view.features)) + _ELEMENT_BYTES * elements
        return max(_LEAST_ROWS, (self._options.chunk_mb << 20) // row_bytes)

    def _forget(self, project: str, views: Iterable[Any]) -> None:
        for view in views:
            self._journal_path(project, view.name).unlink(missing_ok=True)

    def _journal_path(self, project: str, view: str) -> Path:
        return self._repo() / self._options.journal_directory / f"{project}.{view}.jsonl"

    def _repo(self) -> Path:
        return Path(self.repo_config.repo_path or ".")


class _Run:
    """One materialization of one view."""

    def __init__(
        self, view: FeatureView, layout: Layout, rows: NewestRows, journal: Journal, writer: ChunkWriter
    ) -> None:
        self._view = view
        self._keys = layout.keys
        self._names = layout.names
        self._rows = rows
        self._journal = journal
        self._writer = writer

    def prepare(self, chunk_rows: int) -> None:
        """Check every row, unless an earlier run did and its rows are still in the online store."""
        if self._journal.is_checked and self._writer.has_lost(self._journal.probes):
            logger.warning("starting_over view=%s reason=rows_gone_from_online_store", self._view.name)
            self._journal.remove()
        if self._journal.is_checked:
            logger.info(
                "continuing view=%s rows_done=%d of=%d", self._view.name, self._journal.rows, self._rows.num_rows
            )
            return
        finite = finite_fields(self._view) if self._writer.is_packed else []
        names = list(dict.fromkeys([*self._keys, *vector_widths(self._view), *finite, *self._rows.doubtful]))
        for table in self._rows.tables(names, 0, chunk_rows):
            check_rows(self._view, self._keys, table)
            check_finite(self._view, self._keys, table, finite)
        self._journal.begin()

    def write(self, chunk_rows: int, advance: Callable[[int], Any]) -> None:
        """Write what is not written yet, and see that all of it is there."""
        with prefetch(self._rows.tables(self._names, self._journal.rows, chunk_rows)) as tables:
            for table in tables:
                self._write_chunk(table)
                advance(table.num_rows)
        self._rows.check_unchanged()
        if self._writer.has_lost(self._journal.probes):
            self._journal.remove()
            raise LostRowsError(
                f"online store must keep the rows of feature view {self._view.name} that it took (lacks some of them: "
                "it was emptied or restarted meanwhile); run again"
            )

    def _write_chunk(self, table: Any) -> None:
        done = self._journal.rows
        try:
            self._writer.write(table)
        except Exception as error:
            error.add_note(
                f"feature view {self._view.name}: {done} of {self._rows.num_rows} rows were written before this; "
                "run again to go on from there"
            )
            raise
        self._journal.complete(done + table.num_rows, self._writer.probes(table))


def is_plain(view: Any) -> bool:
    """Whether a view is rows of one batch source and nothing else: no stream, transformation, aggregation or checks."""
    if type(view) not in (FeatureView, BatchFeatureView) or view.batch_source is None:
        return False
    extras = ("feature_transformation", "aggregations", "source_views", "enable_validation", "offline")
    return not any(getattr(view, name, None) for name in extras)


@contextmanager
def _progress(task: MaterializationTask, total: int, done: int) -> Iterator[Callable[[int], Any]]:
    """How to advance Feast's progress bar; it is not shown to a caller that catches in memory what Feast prints."""
    if task.tqdm_builder is None or isinstance(sys.stdout, io.StringIO):
        yield lambda _: None
        return
    with task.tqdm_builder(total) as bar:
        bar.update(done)
        yield bar.update
