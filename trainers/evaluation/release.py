"""A release: the programs, the index and the manifest that a server answers from.

Everything in it was trained on exactly the embedding versions it names.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from torch import nn

from feature_repo.contract import MANIFEST_FILE, EmbeddingVersion
from trainers.calibration import sampling_logit_shift
from trainers.data.examples import Examples
from trainers.data.ranking_data import RankingData, renamed_vectors
from trainers.data.retrieval_data import RetrievalReader
from trainers.evaluation.arms import ArmResult, RankerJob
from trainers.evaluation.figures import calibrators
from trainers.evaluation.onnx_export import export
from trainers.evaluation.retrieval import RetrievalArm, RetrievalJob
from trainers.forked import map_forked
from trainers.progress import SILENT, Progress
from trainers.retrieval.model import QueryTower
from trainers.retrieval.train import embed

ANY_SURFACE = "*"
NUM_POPULAR = 200
"""Popular Pins kept for users that nothing is known of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseParts:
    """What a release is made from."""

    rankers: Mapping[str, tuple[RankerJob, ArmResult]]
    """`pctr` and, where there are conversions, `pcvr`."""
    retrieval: RetrievalArm
    retrieval_job: RetrievalJob
    reader: RetrievalReader
    versions: tuple[EmbeddingVersion, ...]
    services: Mapping[str, str]
    """Feature services: `retrieval` and `ranking`."""
    commit: str
    seed: int
    cutoff: datetime
    """Data cut-off of the index: candidates are embedded as of then."""


def write_release(
    parts: ReleaseParts, folder: Path, *, workers: int = 1, progress: Progress = SILENT
) -> dict[str, Any]:
    """Write every file of a release aside, then put it in the place of the one before.

    Returns:
        Figures: the release's id, Pins in its index, and the largest difference of a program from its model.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    difference = _export_programs(parts, partial, workers, progress)
    pin_ids = _write_index(parts, partial)
    manifest = _manifest(parts, partial, pin_ids)
    (partial / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return {"release": manifest["release"], "index_pins": len(pin_ids), "export_difference": difference}


def _arm_examples(data: RankingData, arm: ArmResult | RetrievalArm) -> Examples:
    return renamed_vectors(data.pin, arm.pin, renamed_vectors(data.user, arm.user, data.examples))


def _export_programs(parts: ReleaseParts, folder: Path, workers: int, progress: Progress) -> float:
    """Write the rankers and the query tower, one a core; returns the largest difference of a program from its model."""
    programs: list[tuple[nn.Module, Examples, Path]] = [
        (result.ranker, _arm_examples(job.data, result).take(job.split.test[:256]), folder / f"{name}.onnx")
        for name, (job, result) in parts.rankers.items()
    ]
    job, arm = parts.retrieval_job, parts.retrieval
    users = renamed_vectors(job.data.user, arm.user, job.test.users)
    programs.append((QueryTower(arm.model).eval(), users, folder / "query_tower.onnx"))

    def write(program: tuple[nn.Module, Examples, Path], progress: Progress) -> float:
        del progress
        return export(*program)

    return max(map_forked(write, programs, name="export models", workers=workers, progress=progress))


def _write_index(parts: ReleaseParts, folder: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Candidate vectors with their popularity as a last element, by which a query's last element, 1, is multiplied."""
    job, arm, reader = parts.retrieval_job, parts.retrieval, parts.reader
    pin_ids = reader.corpus(parts.cutoff)
    pins = renamed_vectors(job.data.pin, arm.pin, reader.examples("pin", pin_ids, parts.cutoff))
    popularity = reader.log_popularity(pin_ids, parts.cutoff, arm.prior.days)
    bias = arm.temperature * arm.prior.weight * popularity
    vectors = np.concatenate([embed(arm.model, "pin", pins), bias[:, None]], axis=1).astype(np.float32)
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(np.ascontiguousarray(vectors), pin_ids)
    faiss.write_index(index, str(folder / "pins.faiss"))
    return pin_ids


def _manifest(parts: ReleaseParts, folder: Path, pin_ids: np.ndarray[Any, Any]) -> dict[str, Any]:
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
    arm = parts.retrieval
    ctr_job, ctr = parts.rankers["pctr"]
    spec = ctr_job.spec
    return {
        "format": 1,
        "release": f"r-{hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:12]}",
        "dataset": spec.name,
        "commit": parts.commit,
        "seed": parts.seed,
        "created": datetime.now(UTC).isoformat(),
        "data_cutoff": parts.cutoff.isoformat(),
        "embeddings": [
            {"model": each.model, "version": each.version, "dim": each.dim, "ttl_hours": each.ttl_hours}
            for each in parts.versions
        ],
        "surfaces": list(ctr_job.data.context.categorical[0].vocabulary),
        "pin_title": spec.pin_title,
        "services": dict(parts.services),
        "encoders": {
            "query.user": arm.user.to_dict(),
            "ranking.user": ctr.user.to_dict(),
            "ranking.pin": ctr.pin.to_dict(),
            "ranking.context": ctr_job.data.context.to_dict(),
        },
        "retrieval": {
            "model": "query_tower.onnx",
            "output": "query",
            "index": "pins.faiss",
            "dim": arm.model.config.vector_dim + 1,
            "num_pins": len(pin_ids),
        },
        "rankers": {name: _ranker_manifest(name, *ranker) for name, ranker in parts.rankers.items()},
        "popular": _popular(parts),
        "sha256": digests,
    }


def _ranker_manifest(name: str, job: RankerJob, result: ArmResult) -> dict[str, Any]:
    """Calibration of the released seed; logits of a log that kept a share of the negatives are shifted back."""
    calibrator = calibrators(job, result)[0]
    shift = _sampling_shift(job) if job.task == job.spec.ctr_task else 0.0
    scales = {ANY_SURFACE: calibrator.default, **calibrator.surfaces}
    return {
        "model": f"{name}.onnx",
        "output": job.task,
        "calibration": {surface: [scale.slope, scale.intercept + shift] for surface, scale in scales.items()},
    }


def _sampling_shift(job: RankerJob) -> float:
    """What brings logits of a sampled log back to the rate of the whole one; 0 if both classes were kept alike."""
    rows = job.split.train
    labels = job.data.examples.labels[rows, job.columns()[0]]
    negative, positive = (_share_kept(job.data.sampling_rate[rows[labels == label]]) for label in (0.0, 1.0))
    return sampling_logit_shift(negative) - sampling_logit_shift(positive)


def _share_kept(rates: np.ndarray[Any, Any]) -> float:
    """Share kept of the impressions that the rows stand for: each stands for 1 / rate of them."""
    return min(1.0, float(1.0 / np.mean(1.0 / rates))) if len(rates) else 1.0


def _popular(parts: ReleaseParts) -> dict[str, list[int]]:
    """Most engaged Pins of the last training days, per surface and overall."""
    job, _ = parts.rankers["pctr"]
    rows = np.concatenate([job.split.train, job.split.validation])
    engaged = rows[job.data.examples.labels[rows, job.columns()[0]] == 1.0]
    surfaces = job.data.surfaces[engaged]
    popular = {ANY_SURFACE: _most_frequent(job.data.pin_ids[engaged])}
    return popular | {str(s): _most_frequent(job.data.pin_ids[engaged[surfaces == s]]) for s in np.unique(surfaces)}


def _most_frequent(pin_ids: np.ndarray[Any, Any]) -> list[int]:
    unique, counts = np.unique(pin_ids, return_counts=True)
    return [int(pin) for pin in unique[np.argsort(-counts, kind="stable")][:NUM_POPULAR]]
