"""Random sequences of commands with kills: no consumer reads two spaces, no release lacks a part, nothing in use goes.

More of them: `HEADWATER_SEQUENCES=200 pytest tests/life/system/test_system.py`, with another `HEADWATER_SEED`.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.life.system.machine import SystemMachine
from tests.life.system.workshop import Workshop

SEQUENCES = int(os.environ.get("HEADWATER_SEQUENCES", "2"))
STEPS = int(os.environ.get("HEADWATER_STEPS", "8"))
SEED = int(os.environ.get("HEADWATER_SEED", "1"))


def test_random_sequences_of_commands_keep_every_promise(workshop: Workshop, two_versions: Path) -> None:
    SystemMachine.workshop, SystemMachine.base = workshop, two_versions
    found = settings(
        max_examples=SEQUENCES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(SEED)(SystemMachine), settings=found)
    finally:
        print(dict(SystemMachine.counts))
