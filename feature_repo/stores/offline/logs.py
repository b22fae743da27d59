"""Logged features as parquet files of a folder, each written in one step."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination


def write_logs(data: pa.Table | Path, logging_config: LoggingConfig, repo_path: Path) -> None:
    """Add logs to their folder, in hive partitions if the destination asks for them.

    Raises:
        ValueError: The destination is no local folder.
        OSError: The disk is full or the folder cannot be written; nothing was added.
    """
    destination = logging_config.destination
    if not isinstance(destination, FileLoggingDestination) or "://" in destination.path:
        kind = type(destination).__name__
        raise ValueError(f"logs must go to a local FileLoggingDestination (got {kind}); use another offline store")
    _add_files(data, repo_path / destination.path, destination.partition_by or [])


def _add_files(data: pa.Table | Path, folder: Path, partition_by: Sequence[str]) -> None:
    logs = data if isinstance(data, pa.Table) else pads.dataset(data, format="parquet")
    batch = uuid.uuid4().hex
    hidden = folder / f".{batch}.partial"
    schema = pa.schema([logs.schema.field(name) for name in partition_by])
    try:
        pads.write_dataset(
            logs,
            hidden,
            format="parquet",
            basename_template=f"{batch}-{{i}}.parquet",
            partitioning=pads.partitioning(schema, flavor="hive") if partition_by else None,
        )
        for path in sorted(hidden.rglob("*.parquet")):
            target = folder / path.relative_to(hidden)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
