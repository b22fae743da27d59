"""Commands on a pipeline of tiny steps, in a folder of their own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

import trainers
from tests.commands.invoking import Body, body
from trainers.commands.run import STEP_COMMANDS
from trainers.run_config import RunConfig
from trainers.steps import RunContext, Step


def seed_input(context: RunContext) -> Mapping[str, str]:
    return {"seed": str(context.config.seed)}


@pytest.fixture(name="bodies", autouse=True)
def bodies_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Body]:
    """A pipeline of tiny steps, whose bodies a test may replace."""
    found = {name: body(name) for name in STEP_COMMANDS}
    pipeline = ModuleType("trainers.pipeline")

    def steps(config: RunConfig) -> list[Step]:
        assert config.dataset
        return [Step(name, found[name], seed_input, [name]) for name in STEP_COMMANDS]

    pipeline.steps = steps  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trainers.pipeline", pipeline)
    monkeypatch.setattr(trainers, "pipeline", pipeline, raising=False)
    monkeypatch.chdir(tmp_path)
    return found
