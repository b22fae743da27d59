"""What tests of several folders share: one thread, and one small feature repo with everything in it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

# Read when torch is first imported. Models of tests are so small that threads only wait for each other: ten times
# slower on busy cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from tests.data.small_repo import SmallRepo


@pytest.fixture(scope="session")
def small_repo(tmp_path_factory: pytest.TempPathFactory) -> SmallRepo:
    """A feature repo of a hundred generated users with hand-made embeddings; tests only read it."""
    # Imported here: most tests need neither Feast nor the seconds that it takes to import.
    from tests.data.small_repo import build

    return build(tmp_path_factory.mktemp("small_repo"))


@pytest.fixture(autouse=True)
def _denormal_numbers() -> None:
    """Undo what `set_up_torch` did to the whole process in an earlier test or fixture: hypothesis needs denormals."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)
