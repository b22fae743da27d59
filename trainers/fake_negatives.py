"""Importance weights for labels that arrive late: a row enters as a negative, and again as a positive once it is one.

Such a stream has p / (1 + p) positives where a share p of the rows becomes positive: a model of it predicts too little.
With 1 + p as the weight of positives and (1 - p)(1 + p) as that of negatives its loss is least at p. The p of the
weights is the model's own prediction, held fixed.
Source: Ktena, Tejani, Theis, Myana, Dilipkumar, Huszár, Yoo and Shi, "Addressing Delayed Feedback for Continuous
Training with Neural Networks in CTR Prediction", RecSys 2019, arXiv:1907.06558, fake negative weighted loss.
Dims: B batch.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def fake_negative_importance(logits: Float[Tensor, "B"], labels: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Weight of each row's cross-entropy: 1 + p of a positive, (1 - p)(1 + p) of others; without a gradient."""
    probability = logits.detach().sigmoid()
    return (1.0 + probability) * torch.where(labels == 1.0, 1.0, 1.0 - probability)
