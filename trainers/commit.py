"""Commit of the code that makes something."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def commit() -> str | None:
    """Commit of the code, marked when the work tree differs from it; none outside a git checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    here = Path(__file__).parent
    found = subprocess.run(
        [git, "describe", "--always", "--dirty", "--abbrev=12"], cwd=here, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None if found.returncode == 0 else None
