"""`headwater train` as torchrun starts it: the first process works through the step, the others train along with it.

torch is imported late, so that asking whether torchrun is there costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from trainers.execution import Finished, Observer, execute
from trainers.progress import SILENT
from trainers.steps import RunContext, Step

STEP = "train"
"""The one step that processes share."""


def started_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def execute_in_team(
    steps: Sequence[Step], context: RunContext, observer: Observer, *, only: str | None = None
) -> list[Finished]:
    """What `execute` does with the step `train`, together with the other processes that torchrun started.

    Every process reads the rows for itself, so the run must lie where all of them can read it.

    Returns:
        Nothing in all processes but the first.

    Raises:
        ValueError: Another step was asked for.
        PeerLostError: Another process ended early.
        StepFailedError: The step raised.
    """
    if only != STEP:
        raise ValueError(
            f"torchrun must start `headwater {STEP}` (got `headwater {only or 'run'}`); run the other steps without it"
        )
    from trainers.parallel import team_of

    with team_of(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) as team:
        if not team.leads:
            if team.told_to_begin():
                from trainers.upstream_steps import run_train

                run_train(context, SILENT)
            return []
        try:
            return execute(steps, context, observer, only=only)
        finally:
            if not team.begun:
                team.begin(go=False)
