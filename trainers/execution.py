"""Runs the steps of a run that are not up to date, one process at a time, and marks those that finish."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from trainers import run_config
from trainers.interrupts import noted_interrupts
from trainers.markers import Marker, files_under, marker_file, plain, write_marker
from trainers.peak_memory import PeakMemory
from trainers.progress import Progress
from trainers.run_lock import run_lock
from trainers.steps import Decision, RunContext, Step, decide


class StepFailedError(RuntimeError):
    """A step raised; the cause is the exception that it raised."""

    def __init__(self, step: str, cause: BaseException) -> None:
        super().__init__(f"step {step} failed: {cause}")
        self.step = step


class StepInterruptedError(KeyboardInterrupt):
    """Ctrl-C in a step; not an `Exception`, so that nothing on the way swallows it."""

    def __init__(self, step: str) -> None:
        super().__init__(f"step {step} was interrupted")
        self.step = step


class UpstreamStepError(ValueError):
    """A step was asked for alone, and a step before it must run first."""


class Observer(Progress, Protocol):
    """Who is told how a run goes on."""

    def step_started(self, name: str, reason: str, position: int, num_steps: int) -> None:
        """A step begins; positions count from 1."""

    def step_finished(self, marker: Marker, *, ran: bool, position: int, num_steps: int) -> None:
        """A step has finished, now or in an earlier process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A step that is complete."""

    marker: Marker
    """What it left and what it cost."""
    ran: bool
    """Whether it ran in this process."""


def execute(
    steps: Sequence[Step], context: RunContext, observer: Observer, *, only: str | None = None
) -> list[Finished]:
    """Run the steps that are not up to date, or the one named `only` when those before it are complete.

    Raises:
        RunLockedError: another process works in the run.
        UpstreamStepError: `only` needs a step that has to run first.
        StepFailedError: a step raised; steps before it stay complete.
        StepInterruptedError: Ctrl-C; steps before it stay complete.
    """
    if only is not None and only not in (names := [step.name for step in steps]):
        raise ValueError(f"step must be one of {', '.join(names)} (got {only!r})")
    with run_lock(context.directory):
        return _Run(steps, context, observer, only).execute()


class _Run:
    """One pass over the steps, under the lock."""

    def __init__(self, steps: Sequence[Step], context: RunContext, observer: Observer, only: str | None) -> None:
        self._steps = steps
        self._context = context
        self._observer = observer
        self._only = only
        self._changed = False

    def execute(self) -> list[Finished]:
        earlier = run_config.save(self._context.config)
        finished: list[Finished] = []
        try:
            for position, step in enumerate(self._steps, start=1):
                upstream = finished[-1].marker.fingerprint if finished else ""
                finished.append(self._complete(step, upstream, position))
                if step.name == self._only:
                    return finished[-1:]
        except Exception:
            # A refused input must not leave options behind that no result was made with.
            if not self._changed:
                run_config.restore(self._context.directory, earlier)
            raise
        return finished

    def _complete(self, step: Step, upstream: str, position: int) -> Finished:
        num_steps = len(self._steps)
        decision = decide(step, self._context, upstream)
        if decision.marker is not None:
            self._observer.step_finished(decision.marker, ran=False, position=position, num_steps=num_steps)
            return Finished(marker=decision.marker, ran=False)
        self._check_upstream(decision)
        step.refuse(self._context)
        self._observer.step_started(step.name, decision.reason, position, num_steps)
        marker = self._run(decision, position)
        self._observer.step_finished(marker, ran=True, position=position, num_steps=num_steps)
        return Finished(marker=marker, ran=True)

    def _check_upstream(self, decision: Decision) -> None:
        needed, run = decision.step.name, self._context.directory
        if self._only not in (None, needed):
            raise UpstreamStepError(
                f"step {self._only} needs a complete step {needed} ({needed}: {decision.reason}); "
                f"run `headwater {needed} --run {run}` first, or `headwater run --run {run}` for every step"
            )

    def _run(self, decision: Decision, position: int) -> Marker:
        step, directory = decision.step, self._context.directory
        drop_markers = functools.partial(self._drop_markers, position)
        if not step.writes_aside:
            drop_markers()
        started = time.perf_counter()
        with PeakMemory() as memory:
            figures = self._call(step, replace(self._context, before_change=drop_markers))
        drop_markers()
        marker = Marker(
            step=step.name,
            fingerprint=decision.fingerprint,
            inputs=decision.inputs,
            files=files_under(directory, step.outputs),
            seconds=round(time.perf_counter() - started, 3),
            peak_mb=round(memory.peak_mb, 1),
            figures=plain(figures),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_marker(directory, marker)
        return marker

    def _call(self, step: Step, context: RunContext) -> Mapping[str, Any]:
        with noted_interrupts() as interrupted:
            try:
                figures = step.run(context, self._observer)
                self._check_outputs(step)
            except KeyboardInterrupt as error:
                raise StepInterruptedError(step.name) from error
            except Exception as error:
                if interrupted():
                    raise StepInterruptedError(step.name) from error
                raise StepFailedError(step.name, error) from error
        return figures

    def _check_outputs(self, step: Step) -> None:
        for output in step.outputs:
            if not files_under(self._context.directory, [output]):
                raise RuntimeError(f"step {step.name} must leave {output}, and nothing is there; please report this")

    def _drop_markers(self, position: int) -> None:
        self._changed = True
        for step in self._steps[position - 1 :]:
            marker_file(self._context.directory, step.name).unlink(missing_ok=True)
