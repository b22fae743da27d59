"""What impressions got when they asked the embedding views for a vector: present, missing, or outside max age."""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.contract import ENTITIES, EmbeddingVersion, RepoManifest, activity_view, embedding_view, join_key
from trainers.data.connection import connect, literal
from trainers.report.schema import EmbeddingCoverage, ViewFreshness

Keys = npt.NDArray[np.int64]


def coverage_rows(
    offline: Path, manifest: RepoManifest, user_ids: Keys, pin_ids: Keys, event_micros: Keys
) -> list[EmbeddingCoverage]:
    """Coverage of every embedding view on these impressions."""
    keys = {"user": user_ids, "pin": pin_ids}
    return [
        _coverage(offline, version, entity, keys[entity], event_micros)
        for version in manifest.embeddings
        for entity in ENTITIES
    ]


def freshness_rows(
    offline: Path, manifest: RepoManifest, user_ids: Keys, pin_ids: Keys, event_micros: Keys, last_day: date
) -> list[ViewFreshness]:
    """Freshness of every view with daily snapshots, and what these impressions got from the activity views.

    Args:
        last_day: Last UTC date of the event log.
    """
    ttls = {(activity_view(entity), entity): manifest.activity_ttl_hours for entity in ENTITIES}
    for each in manifest.embeddings:
        ttls |= {(embedding_view(entity, each.model, each.version), entity): each.ttl_hours for entity in ENTITIES}
    rows = {view: _freshness(offline / view, entity, ttl, last_day) for (view, entity), ttl in ttls.items()}
    for entity, keys in (("user", user_ids), ("pin", pin_ids)):
        view = activity_view(entity)
        if rows[view].num_snapshots:
            ages, _ = _ages_hours(offline / view, entity, keys, event_micros)
            rows[view] = rows[view].model_copy(update=_answers(ages, manifest.activity_ttl_hours))
    return list(rows.values())


def _freshness(folder: Path, entity: str, ttl_hours: int, last_day: date) -> ViewFreshness:
    days = sorted(path.stem.removeprefix("date=") for path in folder.glob("date=*.parquet"))
    newest = date.fromisoformat(days[-1]) if days else None
    return ViewFreshness(
        view=folder.name,
        entity=entity,  # type: ignore[arg-type]
        ttl_hours=ttl_hours,
        num_snapshots=len(days),
        newest=newest,
        # The snapshot of the day after the last has seen all of the log.
        days_behind=max((last_day - newest).days, 0) if newest else None,
    )


def _answers(ages: npt.NDArray[np.float64], ttl_hours: int) -> dict[str, float]:
    """Shares of the three answers among ages in hours, NaN where there was no row."""
    known = np.isfinite(ages)
    present = known & (ages <= ttl_hours) if ttl_hours else known
    num_rows = max(len(ages), 1)
    return {
        "present": float(present.sum() / num_rows),
        "missing": float((~known).sum() / num_rows),
        "outside_max_age": float((known & ~present).sum() / num_rows),
    }


def _coverage(
    offline: Path, version: EmbeddingVersion, entity: str, keys: Keys, event_micros: Keys
) -> EmbeddingCoverage:
    view = embedding_view(entity, version.model, version.version)
    ages, newest = _ages_hours(offline / view, entity, keys, event_micros)
    known = np.isfinite(ages)
    present = known & (ages <= version.ttl_hours) if version.ttl_hours else known
    figures: dict[str, Any] = {"median_age_hours": float(np.median(ages[present]))} if present.any() else {}
    return EmbeddingCoverage(
        view=view,
        entity=entity,  # type: ignore[arg-type]
        model=version.model,
        version=version.version,
        dim=version.dim,
        ttl_hours=version.ttl_hours,
        n_rows=len(keys),
        **_answers(ages, version.ttl_hours),
        num_vectors=newest,
        **figures,
    )


def _ages_hours(folder: Path, entity: str, keys: Keys, event_micros: Keys) -> tuple[npt.NDArray[np.float64], int]:
    """Age of the vector that each impression got, NaN where there was none; size of the newest snapshot."""
    key, source = join_key(entity), f"read_parquet({literal(folder / '*.parquet')}, hive_partitioning = false)"
    asked = pa.table({"row": np.arange(len(keys)), "key": keys, "micros": event_micros})
    with tempfile.TemporaryDirectory() as temp, connect(temp=Path(temp)) as connection:
        connection.register("asked", asked)
        vectors = f"SELECT {key} AS key, epoch_us(event_timestamp) AS micros FROM {source}"
        found = connection.sql(
            f"SELECT (asked.micros - vectors.micros) / 3.6e9 AS hours FROM asked "
            f"ASOF LEFT JOIN ({vectors}) AS vectors ON asked.key = vectors.key AND asked.micros >= vectors.micros "
            "ORDER BY asked.row"
        ).to_arrow_table()
        newest = connection.execute(
            f"SELECT count(*) FROM {source} WHERE event_timestamp = (SELECT max(event_timestamp) FROM {source})"
        ).fetchone()
    hours = found["hours"].to_numpy().astype(np.float64)
    return hours, int(newest[0]) if newest else 0
