"""Repetitions of a case, kept on disk from one run of the benchmark to the next."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from feature_repo.contract import write_atomically
from tests.benchmarks.store_paths.plan import Case
from tests.benchmarks.store_paths.worker import Repetition

_SAME = 1e-6


@dataclass(kw_only=True, slots=True)
class Measured:
    """What one way has done so far."""

    repetitions: list[Repetition] = field(default_factory=list)
    stopped: str | None = None
    """Why it did not get to the end; it is not tried again."""


class Journal:
    """What all ways of a case have done at one commit."""

    def __init__(self, folder: Path, case: Case, commit: str) -> None:
        identity = json.dumps([case.path, dict(case.params), case.variants, commit], sort_keys=True)
        self._path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
        self.measured = {variant: Measured() for variant in case.variants}
        if self._path.exists():
            self._load(json.loads(self._path.read_text()))

    def _load(self, stored: dict[str, Any]) -> None:
        for variant, found in stored.items():
            repetitions = [Repetition(**each) for each in found["repetitions"]]
            self.measured[variant] = Measured(repetitions=repetitions, stopped=found["stopped"])

    def forget(self) -> None:
        """Drop what was kept."""
        self._path.unlink(missing_ok=True)
        self.measured = {variant: Measured() for variant in self.measured}

    def add(self, variant: str, number: int, repetition: Repetition) -> None:
        """Keep a repetition.

        Raises:
            RuntimeError: Its answer differs from that of another way; figures of ways that disagree mean nothing.
        """
        for other, done in self.measured.items():
            for same in done.repetitions[number : number + 1]:
                _check_same(variant, repetition.answer, other, same.answer)
        self.measured[variant].repetitions.append(repetition)
        self._save()

    def stop(self, variant: str, reason: str) -> None:
        """Keep why a way did not get to the end."""
        self.measured[variant].stopped = reason
        self._save()

    def is_done(self, repeats: int) -> bool:
        """Whether no way has anything left to do."""
        return all(self.lacks(variant, repeats - 1) is False for variant in self.measured)

    def lacks(self, variant: str, number: int) -> bool:
        """Whether a way still has to do a repetition."""
        done = self.measured[variant]
        return done.stopped is None and len(done.repetitions) <= number

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, json.dumps({name: asdict(done) for name, done in self.measured.items()}))


def _check_same(variant: str, answer: dict[str, float], other: str, expected: dict[str, float]) -> None:
    shared = answer.keys() & expected.keys()
    if not all(math.isclose(answer[name], expected[name], rel_tol=_SAME, abs_tol=_SAME) for name in shared):
        raise RuntimeError(f"all ways must give the same answer (got {answer} by {variant}, {expected} by {other})")
