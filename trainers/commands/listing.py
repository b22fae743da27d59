"""How a group of commands lists them: each with its whole first sentence, not cut off where the line ends."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class ListedCommands(TyperGroup):
    """A group whose help says in whole sentences what each command does."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, _summary(command)) for name, command in commands if command is not None and not command.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _summary(command: Any) -> str:
    """The first paragraph of a command's help on one line."""
    return " ".join((command.short_help or command.help or "").partition("\n\n")[0].split())
