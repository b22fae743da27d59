"""Second stage: calibrated probabilities of click and conversion for every candidate.

Dims: B candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_repo.encoding import Array, Encoder, context_table
from feature_repo.release.manifest import RankerArtifact, ReleaseManifest
from serving.onnx_model import OnnxModel, load_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Probabilities of the candidates, in the order in which they were given."""

    pctr: Array
    """Calibrated probability of a click, float64 [B]."""
    pcvr: Array | None
    """Calibrated probability of a conversion given a click, float64 [B]; none without such a model."""

    def take(self, order: Array) -> Scores:
        """Those at some positions."""
        return Scores(pctr=self.pctr[order], pcvr=None if self.pcvr is None else self.pcvr[order])


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingModel:
    """One task's program and its calibration."""

    model: OnnxModel
    artifact: RankerArtifact

    def probabilities(self, arrays: dict[str, Array], surface: str) -> Array:
        """`sigmoid(a * logit + b)` with the surface's calibration, float64 [B]."""
        slope, intercept = self.artifact.calibration_on(surface)
        logits = self.model.run(arrays).reshape(-1).astype(np.float64)
        return np.exp(-np.logaddexp(0.0, -(slope * logits + intercept)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranker:
    """Ranking models of one release; both read the same inputs."""

    user: Encoder
    pin: Encoder
    context: Encoder
    pctr: RankingModel
    pcvr: RankingModel | None

    def score(self, user: pa.Table, pins: pa.Table, surface: str, now: datetime) -> Scores:
        """Probabilities for one user row and every Pin row."""
        arrays = self._inputs(user, pins, surface, now)
        pcvr = self.pcvr.probabilities(arrays, surface) if self.pcvr else None
        return Scores(pctr=self.pctr.probabilities(arrays, surface), pcvr=pcvr)

    def _inputs(self, user: pa.Table, pins: pa.Table, surface: str, now: datetime) -> dict[str, Array]:
        shared = self.user(user) | self.context(context_table([surface], [now]))
        repeated = {name: np.repeat(array, pins.num_rows, axis=0) for name, array in shared.items()}
        return repeated | self.pin(pins)


def load_ranker(directory: Path, manifest: ReleaseManifest, threads: int) -> Ranker:
    """Load the ranking models of a release."""

    def load(artifact: RankerArtifact) -> RankingModel:
        model = load_model(directory / artifact.model, artifact.output, threads, manifest.sha256[artifact.model])
        return RankingModel(model=model, artifact=artifact)

    rankers = manifest.rankers
    pcvr = load(rankers.pcvr) if rankers.pcvr else None
    encoders = manifest.encoders
    return Ranker(
        user=Encoder(encoders.ranking_user),
        pin=Encoder(encoders.ranking_pin),
        context=Encoder(encoders.ranking_context),
        pctr=load(rankers.pctr),
        pcvr=pcvr,
    )
