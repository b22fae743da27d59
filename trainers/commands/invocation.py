"""How this shell calls the program, so that suggested commands can be copied as they stand."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

PROGRAM = "headwater"


def program() -> str:
    """`headwater` where the shell finds it, else the path that it was started with."""
    started_as = Path(sys.argv[0])
    found = shutil.which(PROGRAM)
    if started_as.name != PROGRAM or (found is not None and Path(found).resolve() == started_as.resolve()):
        return PROGRAM
    relative = os.path.relpath(started_as)
    return shlex.quote(str(started_as) if relative.startswith(os.pardir) else relative)


def resume_line(command: str, run: Path) -> str:
    """Shell line that goes on with a command where it stopped."""
    return f"{program()} {command} --run {shlex.quote(str(run))}"
