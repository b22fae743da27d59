"""How a released ranker's probabilities were distributed on the test days, so that what is served can be held to it.

Dims: N test rows.
"""

from __future__ import annotations

import numpy as np

from trainers.calibration import sigmoid
from trainers.evaluation.arms import ArmResult, RankerJob
from trainers.evaluation.figures import TestRows, probabilities_of

QUANTILES = (10, 50, 90)


def score_figures(name: str, job: RankerJob, result: ArmResult, shift: float) -> dict[str, float]:
    """Mean and quantiles of the first seed's probabilities, and the rate that came true, such as `pctr_mean`.

    Rows of a sampled log weigh as much as the impressions that they stand for.

    Args:
        shift: What the release adds to calibrated logits of a sampled log; 0 for a whole one.
    """
    test = TestRows(job)
    if not len(test.labels):
        return {}
    predicted = probabilities_of(job, result, test)[0]
    if shift:
        predicted = sigmoid(np.log(predicted) - np.log1p(-predicted) + shift)
    weights = 1.0 / job.data.sampling_rate[job.split.test]
    found = {f"{name}_p{each}": float(np.percentile(predicted, each)) for each in QUANTILES}
    found[f"{name}_mean"] = float(np.average(predicted, weights=weights))
    found[f"{name}_rate"] = float(np.average(test.labels, weights=weights))
    return found
