"""Process-wide settings of torch for CPU training."""

from __future__ import annotations

import torch


def set_up_torch(threads: int) -> None:
    """Bound torch's threads and treat denormal numbers as zero.

    Adam's moments of rarely seen embedding rows decay into denormals, on which a CPU computes up to a hundred times
    slower. Worker threads inherit the setting, so call this before the first computation of a process.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
