"""Two operators at once: what they leave is what one after the other would have left, and who lost is told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from feature_repo.versions import CatalogueError
from tests.life.system.commands import Command
from tests.life.system.foretold import Foretold
from tests.life.system.plain import PlainRun
from tests.life.system.workshop import Done

TOLD = {"release promote", "release rollback", "release retire"}
"""Commands of one transaction: of two such ones it is known what they may leave."""


def serial_differences(before: Foretold, after: PlainRun, ended: Sequence[tuple[Command, Done]]) -> list[str]:
    """How a run differs from every order of the commands that succeeded; empty where it is as after one of them.

    A command that was refused must have changed nothing, and must say why.
    """
    silent = [
        f"{command} must say why it ends with {done.code}" for command, done in ended if done.code and not done.err
    ]
    found: list[str] = []
    for order in permutations(command for command, done in ended if done.code == 0):
        foretold = before.anew()
        try:
            for command in order:
                command.foretell(foretold, after)
        except CatalogueError as error:
            found.append(f"{' and then '.join(map(str, order))} must be refused ({error})")
            continue
        foretold.services_alone(after)
        wrong = foretold.differences(after)
        if not wrong:
            return silent
        found += wrong
    return silent + found
