"""Who makes a change by hand, and the catalogue that it is made in."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.run_config import RUN_FILE

if TYPE_CHECKING:
    from feature_repo.versions import Catalogue, Transition

REPO = "feature_repo"


def operator() -> str:
    """The person at this shell, `user@host`."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def is_operator(who: str) -> bool:
    """Whether a change was made by a person, not by a step."""
    return "@" in who


def is_repeated(catalogue: Catalogue, subject: str, after: str, *, who: str, why: str) -> bool:
    """Whether a subject was brought into a state by the same person for the same reason: a step that is repeated."""
    last = last_move(catalogue, subject)
    return last is not None and (last.after, last.who, last.why) == (after, who, why)


def last_move(catalogue: Catalogue, subject: str) -> Transition | None:
    """The transition that brought a subject into its state."""
    moves = [each for each in catalogue.transitions(subject) if each.before != each.after]
    return moves[-1] if moves else None


def open_catalogue(run: Path) -> Catalogue:
    """Catalogue of a run.

    Raises:
        ValueError: The folder is no run, or nothing was applied in it yet.
    """
    from feature_repo.versions import Catalogue

    if not (run / RUN_FILE).is_file():
        raise ValueError(f"--run must be the directory of a run (got {str(run)!r}); start one with `headwater run`")
    if not (run / REPO / "feature_store.yaml").is_file():
        raise ValueError(f"{run / REPO} must hold a feature repo (got none); run `headwater run --run {run}` first")
    return Catalogue.of_repo(run / REPO)
