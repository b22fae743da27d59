"""L2 normalisation whose gradient stays finite at zero.

Dims: D width of a vector; any number of leading dimensions.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def l2_normalize(vectors: Float[Tensor, "*batch D"], eps: float = 1e-6) -> Float[Tensor, "*batch D"]:
    """Vectors of unit length; one much shorter than `eps` stays short instead of being blown up.

    The square root is taken of a sum that is at least `eps`², because its gradient at zero is infinite.
    """
    return vectors * (vectors.square().sum(dim=-1, keepdim=True) + eps * eps).rsqrt()
