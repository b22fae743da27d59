"""A run as somebody finds it who wants to do something next."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from tests.life.system.foretold import refreshed
from tests.life.system.plain import PlainRun
from tests.life.system.shop import FIRST, NUM_DAYS
from tests.life.system.workshop import Workshop

LAST_DAY = (FIRST + timedelta(days=NUM_DAYS)).date()


class Situation:
    """One run, who is about to do something to it, and why.

    Args:
        random: Of every choice.
    """

    def __init__(self, workshop: Workshop, folder: Path, random: random.Random) -> None:
        self.workshop, self.folder, self.random = workshop, folder, random
        self.run = folder / "run"
        self.who, self.why = "alice", "old"
        self._numbers = itertools.count()

    @property
    def plain(self) -> PlainRun:
        """What the run holds now."""
        return PlainRun(self.run)

    def new_file(self, name: str) -> Path:
        """Where something is laid that a command reads."""
        stem, _, ending = name.partition(".")
        return self.folder / f"{stem}-{next(self._numbers)}{'.' if ending else ''}{ending}"

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """A file of rows to push."""
        file = self.new_file("rows.jsonl")
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    def pick(self, fitting: list[str], everything: list[str]) -> str:
        """Mostly one of those with which the command may succeed."""
        anything = not fitting or self.random.choice([False] * 4 + [True])
        return str(self.random.choice(sorted(everything if anything else fitting)))

    def versions(self, *states: str) -> list[str]:
        """Versions in these states; all of them if none is named."""
        return [key for key, each in self.plain.seen.versions.items() if not states or each.state in states]

    def releases(self, *states: str) -> list[str]:
        """The same of releases."""
        return [name for name, each in self.plain.seen.releases.items() if not states or each.state in states]

    def next_date(self) -> date | None:
        """The day after the oldest newest day of what is refreshed; none when the raw data ends."""
        plain = self.plain
        visible: dict[str, date] = {}
        for day in plain.days:
            if day["state"] == "visible":
                visible[day["key"]] = day["cutoff"].date()
        newest = [visible[key] for key in refreshed(plain) if key in visible]
        if not newest:
            return None
        following = max(max(newest), min(newest) + timedelta(days=1))
        return following if following <= LAST_DAY else None
