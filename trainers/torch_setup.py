"""Process-wide settings of torch for CPU training."""

from __future__ import annotations

import ctypes
import sys

import torch

# Parameters of glibc's `mallopt` (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = (1 << 31) - 1


def set_up_torch(threads: int) -> None:
    """Bound torch's threads and treat denormal numbers as zero.

    Adam's moments of rarely seen embedding rows decay into denormals, on which a CPU computes up to a hundred times
    slower. Worker threads inherit the setting, so call this before the first computation of a process. Freed memory
    is kept for the next batch: giving it back and faulting it in again costs a tenth of a small model's training.
    """
    _keep_freed_memory()
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)


def _keep_freed_memory() -> None:
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
