"""Second stage: calibrated probabilities of click and conversion for every candidate.

Dims: B candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_repo.encoding import REQUEST_ROW, Array, Encoder, context_table
from feature_repo.release.manifest import RankerArtifact, ReleaseManifest
from serving.onnx_model import OnnxModel, load_model

Arrays = dict[str, Array]


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

    @property
    def takes_requests(self) -> bool:
        """Whether the program takes user and context once per request; others take them with every candidate."""
        return REQUEST_ROW in self.model.inputs

    def probabilities(self, request: Arrays, pins: Arrays, surface: str) -> Array:
        """`sigmoid(a * logit + b)` with the surface's calibration, float64 [B].

        Args:
            request: Inputs of user and context, one row.
            pins: Inputs of the candidates, B rows.
        """
        num_pins = len(next(iter(pins.values())))
        if self.takes_requests:
            arrays = request | pins | {REQUEST_ROW: np.zeros(num_pins, np.int64)}
        else:
            arrays = {name: np.repeat(array, num_pins, axis=0) for name, array in request.items()} | pins
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
    _contexts: dict[tuple[str, int, int], Arrays] = field(default_factory=dict, repr=False, compare=False)
    """Encoded contexts by surface, hour and weekday, from which nothing else follows; surfaces are the release's."""

    def score(self, user: pa.Table, pins: pa.Table, surface: str, now: datetime) -> Scores:
        """Probabilities for one user row and every Pin row."""
        request = self.user(user) | self._context(surface, now)
        candidates = self.pin(pins)
        pcvr = self.pcvr.probabilities(request, candidates, surface) if self.pcvr else None
        return Scores(pctr=self.pctr.probabilities(request, candidates, surface), pcvr=pcvr)

    def _context(self, surface: str, now: datetime) -> Arrays:
        moment = now.astimezone(UTC)
        key = (surface, moment.hour, moment.weekday())
        if key not in self._contexts:
            self._contexts[key] = self.context(context_table([surface], [now]))
        return self._contexts[key]


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
