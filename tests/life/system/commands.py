"""A command on a run, and what the model of the catalogue says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.life.system.foretold import Foretold
from tests.life.system.plain import PlainRun

ALONE = ("refresh", "backfill", "push", "push by feast")
"""Commands of one word."""
Foretell = Callable[[Foretold, PlainRun], None]


@dataclass(frozen=True)
class Command:
    """A command and what the model says of it."""

    arguments: tuple[str, ...]
    foretell: Foretell
    who: str = "alice"
    damaged: bool = False
    may_fail: bool = False
    """Whether the gates may end it with code 1."""
    pushes: tuple[str, str] | None = None
    """Entity and version that it pushes rows of."""
    call: str = ""
    """Function of `made.py` that is called in place of a command."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Its arguments."""

    @property
    def name(self) -> str:
        """The command without its arguments."""
        return " ".join(self.arguments[: 1 if self.arguments[0] in ALONE else 2])

    def __str__(self) -> str:
        program, damaged = "" if self.call else "headwater ", " (damaged)" if self.damaged else ""
        return f"{self.who}: {program}{' '.join(self.arguments)}{damaged}"
