"""What activity features are made of, and where their snapshots and state lie."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feature_repo.contract import ENTITIES, RepoManifest, activity_fields, activity_view, label_columns
from trainers.data.activity_counts import SMOOTHING, totals_columns

DAY = timedelta(days=1)
STATE_FORMAT = 1
"""Raised when the meaning of a state file changes, so that older state is not continued."""

_MEMORY = re.compile(r"[1-9][0-9]*(MB|GB)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityConfig:
    """Where activity features come from, where they go, and what they hold."""

    event_log: Path
    """Event log folder with `impressions/` and `conversions/`."""
    offline: Path
    """Offline store folder; snapshots go to `<view>/date=YYYY-MM-DD.parquet` in it."""
    state: Path
    """Folder for what the next day continues from."""
    manifest: RepoManifest
    """Labels, conversions, windows and sequence length."""
    publish_delay: timedelta
    """Time from a cut-off to the moment its features may be used."""
    retention_days: int = 90
    """Entities without an impression or conversion in that many days before a cut-off get no row."""
    memory_limit: str = "2GB"
    """DuckDB's memory limit, such as `500MB` or `2GB`; above it, it spills to the state folder."""
    threads: int | None = None
    """DuckDB's threads; by default every core."""

    def __post_init__(self) -> None:
        if self.retention_days < 1:
            raise ValueError(f"retention_days must be at least 1 (got {self.retention_days})")
        if self.publish_delay < timedelta(0):
            raise ValueError(f"publish_delay must not be negative (got {self.publish_delay})")
        if min(self.manifest.windows_days, default=1) < 1:
            raise ValueError(f"windows_days must be at least 1 each (got {self.manifest.windows_days})")
        if self.manifest.sequence_length < 1:
            raise ValueError(f"sequence_length must be at least 1 (got {self.manifest.sequence_length})")
        if len(self.manifest.labels) > 62:
            raise ValueError(f"at most 62 labels fit into recent_actions (got {len(self.manifest.labels)})")
        if not _MEMORY.fullmatch(self.memory_limit):
            raise ValueError(f"memory_limit must be a whole number of MB or GB (got {self.memory_limit!r})")
        self._check_names()

    def _check_names(self) -> None:
        names, num_spans = label_columns(self.manifest), len(self.manifest.windows_days) + 1
        num_features = num_spans * (1 + 2 * len(names)) + 1 + len(names) + len(self.manifest.surface_labels)
        columns = totals_columns(self.manifest)
        clash = len(activity_fields(self.manifest, "pin")) < num_features or len(set(columns)) < len(columns)
        if clash or "kind" in names:
            raise ValueError(
                "labels, conversions and windows must give distinct names, none of them impression, activity or kind "
                f"(got {names} and windows {self.manifest.windows_days}); rename one in the dataset"
            )

    @property
    def memory_mb(self) -> int:
        """The memory limit in megabytes."""
        unit = 1000 if self.memory_limit.endswith("GB") else 1
        return int(self.memory_limit[:-2]) * unit

    @property
    def longest_window_days(self) -> int:
        """Days of daily tallies that a snapshot reads."""
        return max(self.manifest.windows_days, default=1)

    def settings(self) -> str:
        """Text that changes whenever the same events would give other features."""
        manifest = self.manifest
        settings = {
            "format": STATE_FORMAT,
            "labels": manifest.labels,
            "conversions": manifest.conversions,
            "windows_days": manifest.windows_days,
            "sequence_length": manifest.sequence_length,
            "retention_days": self.retention_days,
            "publish_delay_seconds": self.publish_delay.total_seconds(),
            "smoothing": SMOOTHING,
        }
        if manifest.surface_labels:
            settings["surface_labels"] = manifest.surface_labels
        return json.dumps(settings, indent=2, sort_keys=True) + "\n"

    def snapshot_path(self, entity: str, cutoff: datetime) -> Path:
        """Snapshot file of a cut-off."""
        return self.offline / activity_view(entity) / file_name(cutoff)

    def state_path(self, kind: str, entity: str, cutoff: datetime) -> Path:
        """State file of a cut-off: kind is `daily`, `totals`, `surfaces` or `sequence`."""
        return self.state / f"{kind}_{entity}" / file_name(cutoff)

    def marker_path(self, cutoff: datetime) -> Path:
        """Marker that says a cut-off's state and snapshots were written, and from which files."""
        return self.state / "complete" / file_name(cutoff, suffix="json")

    def window_paths(self, entity: str, cutoff: datetime) -> list[Path]:
        """Daily tallies in the longest window, oldest first."""
        days = range(self.longest_window_days - 1, -1, -1)
        return [self.state_path("daily", entity, cutoff - day * DAY) for day in days]

    def state_paths(self, cutoff: datetime) -> list[Path]:
        """All state files that the snapshot of a cut-off and the next day read."""
        totals_files = [self.state_path("totals", entity, cutoff) for entity in ENTITIES]
        daily = [path for entity in ENTITIES for path in self.window_paths(entity, cutoff)]
        by_surface = [
            self.state_path("surfaces", entity, cutoff) for entity in ENTITIES if self.manifest.surface_labels
        ]
        return [*totals_files, *daily, *by_surface, self.state_path("sequence", "user", cutoff)]


def file_name(cutoff: datetime, suffix: str = "parquet") -> str:
    """Name of a cut-off's file, after its UTC date."""
    return f"date={cutoff.astimezone(UTC).date().isoformat()}.{suffix}"
