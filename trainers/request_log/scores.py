"""What the models of a release say of encoded rows: programs and calibration as its manifest names them.

Dims: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from feature_repo.encoding import REQUEST_ROW, Array
from feature_repo.release.manifest import RankerArtifact, ReleaseManifest
from trainers.calibration import sigmoid

BATCH = 8192


def released_scores(folder: Path, manifest: ReleaseManifest, inputs: Mapping[str, Array], surfaces: Array) -> Scores:
    """Calibrated probabilities [N] by task, `pctr` and, where there is such a model, `pcvr`.

    Args:
        folder: Of the release, verified.
        inputs: Model inputs by name, N first.
        surfaces: Surface of each row, text [N].
    """
    rankers = {"pctr": manifest.rankers.pctr, "pcvr": manifest.rankers.pcvr}
    return {
        task: _probabilities(ranker, _logits(folder, ranker, inputs, len(surfaces)), surfaces)
        for task, ranker in rankers.items()
        if ranker is not None
    }


Scores = dict[str, npt.NDArray[np.float64]]


def _logits(folder: Path, ranker: RankerArtifact, inputs: Mapping[str, Array], num_rows: int) -> Array:
    session = onnxruntime.InferenceSession(str(folder / ranker.model), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    parts = []
    for start in range(0, num_rows, BATCH):
        batch = {name: _wide(values[start : start + BATCH]) for name, values in inputs.items()}
        # Every row is of a request of its own.
        batch[REQUEST_ROW] = np.arange(min(BATCH, num_rows - start))
        parts.append(session.run([ranker.output], {name: batch[name] for name in names})[0])
    return np.concatenate(parts).reshape(-1).astype(np.float64) if parts else np.zeros(0)


def _probabilities(ranker: RankerArtifact, logits: Array, surfaces: Array) -> npt.NDArray[np.float64]:
    pairs = {str(name): ranker.calibration_on(str(name)) for name in np.unique(surfaces)}
    slopes, intercepts = np.array([pairs[str(name)] for name in surfaces]).reshape(-1, 2).T
    return sigmoid(slopes * logits + intercepts)


def _wide(values: Array) -> Array:
    """As the programs take it: integers of 64 bits."""
    return values.astype(np.int64) if values.dtype == np.int32 else values
