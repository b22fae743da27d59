"""Resumable steps: a step is done when its outputs are complete and its inputs unchanged.

A run is an ordered list of steps. A finished step leaves a marker with the fingerprint of its inputs, chained to the
steps before it; whatever no longer matches runs again, and everything after it. `trainers.execution` runs them: it
drops the markers of a step and of all that follow before outputs change, so that a kill at any point costs work only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.markers import Marker, fingerprint, first_absent, read_marker
from trainers.progress import Progress
from trainers.run_config import RunConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """The run that a step works in."""

    config: RunConfig
    """What the run was asked to do."""
    before_change: Callable[[], None] = lambda: None
    """Called by `swap_in`; the engine drops markers with it."""

    @property
    def directory(self) -> Path:
        """Directory of the run."""
        return self.config.out

    def path(self, relative: str) -> Path:
        """A path in the run."""
        return self.directory / relative

    def figures(self, step: str) -> Mapping[str, Any]:
        """Figures of a finished step; empty where it has not finished."""
        marker = read_marker(self.directory, step)
        return marker.figures if marker is not None else {}

    def swap_in(self, staged: Path, relative: str) -> None:
        """Replace an output by what was written aside, on the same file system, as late as can be."""
        self.before_change()
        target = self.path(relative)
        outgoing = target.with_name(f".{target.name}.outgoing")
        remove(outgoing)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.replace(outgoing)
        staged.replace(target)
        remove(outgoing)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _no_inputs(context: RunContext) -> Mapping[str, str]:
    del context
    return {}


def _refuse_nothing(context: RunContext) -> None:
    del context


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run."""

    name: str
    """Name, also of its command and of its marker."""
    run: Callable[[RunContext, Progress], Mapping[str, Any]]
    """Does the work and returns figures to report; it alone decides whether partial work can be kept."""
    inputs: Callable[[RunContext], Mapping[str, str]] = _no_inputs
    """Everything outside earlier steps on which the outputs depend, by name; called once those are done."""
    outputs: Sequence[str] = ()
    """Files and folders, relative to the run, that must exist afterwards; a folder must hold a file."""
    refuse: Callable[[RunContext], None] = _refuse_nothing
    """Called before anything of the step is touched; raises where it must not run."""
    writes_aside: bool = False
    """The step changes outputs only through `RunContext.swap_in`, so a failure before leaves earlier results valid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Whether a step has to run, and why."""

    step: Step
    reason: str
    """Why it has to run; empty when it is up to date."""
    marker: Marker | None
    """Marker of the step when it is up to date."""
    fingerprint: str = ""
    """Fingerprint that its marker will carry; empty while a step before it has to run."""
    inputs: Mapping[str, str]
    """Inputs now; empty while a step before it has to run."""

    @property
    def must_run(self) -> bool:
        """Whether the step is not up to date."""
        return bool(self.reason)


def plan(steps: Sequence[Step], context: RunContext) -> list[Decision]:
    """What a run would do now; reads, and writes nothing."""
    decisions: list[Decision] = []
    for step in steps:
        last = decisions[-1] if decisions else None
        if last is not None and last.must_run:
            first = next(decision.step.name for decision in decisions if decision.must_run)
            reason = f"step {first} runs first"
            decisions.append(Decision(step=step, reason=reason, marker=None, inputs={}))
        else:
            decisions.append(decide(step, context, last.fingerprint if last is not None else ""))
    return decisions


def decide(step: Step, context: RunContext, upstream: str) -> Decision:
    """Whether a step has to run, given the fingerprint of the complete step before it."""
    inputs = dict(step.inputs(context))
    current = fingerprint(step.name, inputs, upstream)
    marker = read_marker(context.directory, step.name)
    reason = _reason(marker, inputs, current, context.directory)
    return Decision(step=step, reason=reason, marker=None if reason else marker, fingerprint=current, inputs=inputs)


def _reason(marker: Marker | None, inputs: Mapping[str, str], current: str, directory: Path) -> str:
    if marker is None:
        return "has not finished yet"
    if marker.fingerprint != current:
        names = sorted(name for name in {*inputs, *marker.inputs} if inputs.get(name) != marker.inputs.get(name))
        shown = (f"{name} {_shown(marker.inputs.get(name))} → {_shown(inputs.get(name))}" for name in names)
        return f"inputs changed: {', '.join(shown) or 'an earlier step'}"
    absent = first_absent(directory, marker.files)
    return f"output {absent} is missing" if absent is not None else ""


def _shown(value: str | None) -> str:
    if value is None:
        return "none"
    return value if len(value) <= 40 else f"{value[:12]}…"
