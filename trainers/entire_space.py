"""Learning a conversion given a click on every impression (ESMM).

A ranker of conversions after a click that learns from clicked impressions alone is asked about all of them. Here it
learns from what is known of every impression, a click, and a click with a conversion: the chance of the latter is the
product of the two it predicts.
Source: Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion Rate",
SIGIR 2018, arXiv:1804.07931, section 2.
Dims: B batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_LARGEST_LOG = -1e-6
"""The log of a chance nearer to 0 has no finite log of its complement in float32."""


def click_and_conversion(clicks: Float[Tensor, "B"], conversions: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Label of an impression that was clicked and converted; NaN where a conversion is open, or a click not defined.

    Args:
        clicks: 0 or 1, NaN where not defined.
        conversions: The same, given a click.
    """
    return torch.where(clicks == 0.0, 0.0, torch.where(clicks == 1.0, conversions, torch.nan))


def entire_space_bce(
    click_logits: Float[Tensor, "B"], conversion_logits: Float[Tensor, "B"], labels: Float[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the product of both chances over the rows whose label is not NaN; 0 without any.

    Args:
        conversion_logits: Logits of a conversion given a click.
        labels: 1 for a click with a conversion; see `click_and_conversion`.
    """
    defined = ~labels.isnan()
    log_both = (F.logsigmoid(click_logits) + F.logsigmoid(conversion_logits)).clamp(max=_LARGEST_LOG)
    positive = labels.nan_to_num(0.0)
    losses = -positive * log_both - (1.0 - positive) * torch.log(-torch.expm1(log_both))
    return (losses * defined).sum() / defined.sum().clamp(min=1)
