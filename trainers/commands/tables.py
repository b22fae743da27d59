"""Rows for people: columns aligned, nothing cut, wrapped where a terminal is narrower."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

LEAST_ROOM = 20
"""Characters of the narrowest last column; what leaves less is shown row by row."""


def terminal_width() -> int | None:
    """Columns of the terminal that is written to; none where a program reads, which gets a line a row."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def aligned(rows: Sequence[Sequence[str]], *, indent: str = "", width: int | None = None) -> str:
    """Lines of rows whose columns begin at the same place; the first row is the heading.

    Args:
        width: Columns that there are: the last column is wrapped to fit, and where that leaves it too little room, each
            row becomes a block of its own; no limit if not given.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    before = len(indent) + sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = widths[-1] if width is None else min(widths[-1], width - before)
    if room < min(LEAST_ROOM, widths[-1]):
        return "\n".join(_blocks(rows, indent, width or 0))
    lines = []
    for row in rows:
        first, *others = textwrap.wrap(row[-1], room, break_on_hyphens=False) if len(row[-1]) > room else [row[-1]]
        cells = [*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), first]
        lines += [indent + "  ".join(cells).rstrip(), *(" " * before + other for other in others)]
    return "\n".join(lines)


def _blocks(rows: Sequence[Sequence[str]], indent: str, width: int) -> Iterator[str]:
    """Each row as its first cell, then a line for every other cell with its heading."""
    heading, widest = rows[0], max(map(len, rows[0][1:]))
    for title, *cells in rows[1:]:
        yield indent + title
        for name, cell in zip(heading[1:], cells, strict=True):
            if cell:
                start = f"{indent}  {name.ljust(widest)}  "
                room = max(LEAST_ROOM, width - len(start))
                yield textwrap.fill(
                    cell,
                    len(start) + room,
                    initial_indent=start,
                    subsequent_indent=" " * len(start),
                    break_on_hyphens=False,
                )


def size(num_bytes: int) -> str:
    """A number of bytes as people say it: `3.4 MB`."""
    value, unit = float(num_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
