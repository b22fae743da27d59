"""A release: the programs, the index and the manifest that a server answers from.

Everything in it was trained on exactly the embedding versions it names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.contract import EmbeddingVersion, join_key
from feature_repo.encoding import IdInput, InputSpec, blank
from feature_repo.release.manifest import ReleaseManifest
from trainers.calibration import sampling_logit_shift
from trainers.data.event_log import EventLog
from trainers.data.examples import Examples
from trainers.data.ranking_data import RankingData, renamed_vectors
from trainers.data.retrieval_data import RetrievalReader
from trainers.evaluation.arms import ArmResult, RankerJob
from trainers.evaluation.figures import calibrators
from trainers.evaluation.onnx_export import export
from trainers.evaluation.ranker_export import export_ranker
from trainers.evaluation.retrieval import RetrievalArm, RetrievalJob
from trainers.evaluation.served_scores import score_figures
from trainers.forked import map_forked
from trainers.life.pin_index import ANY_SURFACE, CandidateProgram, popular_pins, write_pin_index
from trainers.life.release_folders import write_release_folder
from trainers.life.text_ids import write_text_ids
from trainers.progress import SILENT, Progress
from trainers.retrieval.model import CandidateTower, QueryTower

QUERY_TOWER, CANDIDATE_TOWER, PIN_INDEX = "query_tower.onnx", "candidate_tower.onnx", "pins.faiss"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseParts:
    """What a release is made from."""

    rankers: Mapping[str, tuple[RankerJob, ArmResult]]
    """`pctr` and, where there are conversions, `pcvr`."""
    retrieval: RetrievalArm
    retrieval_job: RetrievalJob
    log: EventLog
    """Event log, for popularity."""
    candidates: Callable[[InputSpec], RetrievalReader]
    """Reader of Pin features with the candidate tower's encoder."""
    versions: tuple[EmbeddingVersion, ...]
    spaces: Mapping[str, str]
    """Space id by version key."""
    services: Mapping[str, str]
    """Feature services: `retrieval` and `ranking`."""
    commit: str
    seed: int
    cutoff: datetime
    """Data cut-off of the index: candidates are embedded as of then."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """How the models did on the test days."""


def write_release(
    parts: ReleaseParts,
    releases: Path,
    *,
    workers: int = 1,
    progress: Progress = SILENT,
    check: Callable[[str], object] = str,
) -> tuple[ReleaseManifest, dict[str, Any]]:
    """Write a release into a folder of its own under `releases`.

    Args:
        check: Told the release's name before the folder gets it; may raise, and then nothing is left.

    Returns:
        Its manifest, and figures: its id, Pins in its index, the largest difference of a program from its model.
    """
    differences: list[float] = []

    def fill(folder: Path) -> dict[str, Any]:
        differences.append(_export_programs(parts, folder, workers, progress))
        arm, encoder = parts.retrieval, candidate_encoder(parts.retrieval.pin, parts.retrieval_job.sequence_buckets)
        program = CandidateProgram(
            file=folder / CANDIDATE_TOWER,
            output="candidate",
            encoder=encoder,
            temperature=arm.temperature,
            prior_days=arm.prior.days,
            prior_weight=arm.prior.weight,
        )
        pin_ids = write_pin_index(program, parts.candidates(encoder), parts.cutoff, folder / PIN_INDEX)
        return _manifest(parts, program, len(pin_ids)) | write_text_ids(parts.log, folder)

    manifest = write_release_folder(releases, fill, check=check)
    figures = {
        "release": manifest.release,
        "index_pins": manifest.retrieval.num_pins,
        "export_difference": differences[0],
    }
    return manifest, figures


def candidate_encoder(pin: InputSpec, sequence_buckets: int) -> InputSpec:
    """Inputs of the candidate tower, the Pin's own key among them where there is a table of Pins."""
    own = (IdInput(column=join_key("pin"), buckets=sequence_buckets),) if sequence_buckets else ()
    return replace(pin, ids=own)


def _arm_examples(data: RankingData, arm: ArmResult | RetrievalArm) -> Examples:
    return renamed_vectors(data.pin, arm.pin, renamed_vectors(data.user, arm.user, data.examples))


def _export_programs(parts: ReleaseParts, folder: Path, workers: int, progress: Progress) -> float:
    """Write the rankers and both towers, one a core; returns the largest difference of a program from its model."""
    programs: list[Callable[[], float]] = []
    for name, (ranking, result) in parts.rankers.items():
        rows = _arm_examples(ranking.data, result).take(ranking.split.test[:256])
        programs.append(partial(export_ranker, result.ranker, rows, folder / f"{name}.onnx"))
    job, arm = parts.retrieval_job, parts.retrieval
    users = renamed_vectors(job.data.user, arm.user, job.test.users)
    pins = renamed_vectors(job.data.pin, arm.pin, job.test.pins).take(np.arange(min(256, len(job.test.pins))))
    made = blank(candidate_encoder(arm.pin, job.sequence_buckets), 1)
    pins = Examples(inputs={name: pins.inputs[name] for name in made}, labels=pins.labels)
    programs.append(partial(export, QueryTower(arm.model).eval(), users, folder / QUERY_TOWER))
    programs.append(partial(export, CandidateTower(arm.model).eval(), pins, folder / CANDIDATE_TOWER))

    def write(program: Callable[[], float], progress: Progress) -> float:
        del progress
        return program()

    return max(map_forked(write, programs, name="export models", workers=workers, progress=progress))


def _manifest(parts: ReleaseParts, program: CandidateProgram, num_pins: int) -> dict[str, Any]:
    arm = parts.retrieval
    ctr_job, ctr = parts.rankers["pctr"]
    spec = ctr_job.spec
    return {
        "dataset": spec.name,
        "commit": parts.commit,
        "seed": parts.seed,
        "data_cutoff": parts.cutoff.isoformat(),
        "embeddings": [
            {
                "model": each.model,
                "version": each.version,
                "dim": each.dim,
                "ttl_hours": each.ttl_hours,
                "space_id": parts.spaces[each.key],
            }
            for each in parts.versions
        ],
        "surfaces": list(ctr_job.data.context.categorical[0].vocabulary),
        "pin_title": spec.pin_title,
        "services": dict(parts.services),
        "encoders": {
            "query.user": arm.user.to_dict(),
            "candidate.pin": program.encoder.to_dict(),
            "ranking.user": ctr.user.to_dict(),
            "ranking.pin": ctr.pin.to_dict(),
            "ranking.context": ctr_job.data.context.to_dict(),
        },
        "retrieval": {
            "model": QUERY_TOWER,
            "output": "query",
            "candidate_model": CANDIDATE_TOWER,
            "candidate_output": program.output,
            "index": PIN_INDEX,
            "dim": arm.model.config.vector_dim + 1,
            "num_pins": num_pins,
            "temperature": program.temperature,
            "prior": {"days": program.prior_days, "weight": program.prior_weight},
        },
        "rankers": {name: _ranker_manifest(name, *ranker) for name, ranker in parts.rankers.items()},
        "popular": popular_pins(parts.log, parts.cutoff),
        "figures": {**parts.figures, **_score_figures(parts)},
    }


def _ranker_manifest(name: str, job: RankerJob, result: ArmResult) -> dict[str, Any]:
    """Calibration of the released seed; logits of a log that kept a share of the negatives are shifted back."""
    calibrator, shift = calibrators(job, result)[0], _shift(job)
    scales = {ANY_SURFACE: calibrator.default, **calibrator.surfaces}
    return {
        "model": f"{name}.onnx",
        "output": job.task,
        "calibration": {surface: [scale.slope, scale.intercept + shift] for surface, scale in scales.items()},
    }


def _score_figures(parts: ReleaseParts) -> dict[str, float]:
    """Of each ranker, how its probabilities were distributed on the test days."""
    found: dict[str, float] = {}
    for name, (job, result) in parts.rankers.items():
        found |= score_figures(name, job, result, _shift(job))
    return found


def _shift(job: RankerJob) -> float:
    return _sampling_shift(job) if job.task == job.spec.ctr_task else 0.0


def _sampling_shift(job: RankerJob) -> float:
    """What brings logits of a sampled log back to the rate of the whole one; 0 if both classes were kept alike."""
    rows = job.split.train
    labels = job.data.examples.labels[rows, job.columns()[0]]
    negative, positive = (_share_kept(job.data.sampling_rate[rows[labels == label]]) for label in (0.0, 1.0))
    return sampling_logit_shift(negative) - sampling_logit_shift(positive)


def _share_kept(rates: np.ndarray[Any, Any]) -> float:
    """Share kept of the impressions that the rows stand for: each stands for 1 / rate of them."""
    return min(1.0, float(1.0 / np.mean(1.0 / rates))) if len(rates) else 1.0
