"""What `headwater check` prints: the verdict, what to look at, and the figures behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainers.data.inspection.schema import ColumnCheck, DataCheck, DelayCheck, Rates, TaskCheck
from trainers.report.check_page import headline

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_MOST_DAYS = 31


def show(check: DataCheck, console: Console) -> None:
    """Print a check."""
    console.print(Text(headline(check), style="bold"))
    for finding in check.findings:
        console.print(Text.assemble((f"{finding.level}: ", _STYLES[finding.level]), finding.text))
    _print(
        console,
        ("table", "rows read", "kept", "set aside"),
        ((each.table, _n(each.read), _n(each.kept), _reasons(each.quarantined)) for each in check.tables),
    )
    _print(console, ("task", "part", "from", "until", "negatives", "positives"), map(_task_row, check.tasks))
    labels = tuple(dict.fromkeys(label for day in check.days for label in day.rates))
    days = ((str(day.day), *_rates(day, labels)) for day in check.days[-_MOST_DAYS:])
    _print(console, ("day", "impressions", *labels), days)
    surfaces = ((surface.surface, *_rates(surface, labels)) for surface in check.surfaces)
    _print(console, ("surface", "impressions", *labels), surfaces)
    headings = ("conversion", "count", "half within", "95 % within", "window", "inside it")
    _print(console, headings, map(_delay_row, check.delays))
    headings = ("table", "column", "missing", "different", "smallest", "largest")
    _print(console, headings, map(_column_row, check.columns))


def _task_row(task: TaskCheck) -> tuple[str, ...]:
    return (task.task, task.part, str(task.start), str(task.end), _n(task.negatives), _n(task.positives))


def _rates(part: Rates, labels: Sequence[str]) -> tuple[str, ...]:
    return (_n(part.impressions), *(_share(part.rates.get(label)) for label in labels))


def _delay_row(delay: DelayCheck) -> tuple[str, ...]:
    days = (f"{delay.median_days:.1f} d", f"{delay.p95_days:.1f} d", f"{delay.attribution_days} d")
    return (delay.kind, _n(delay.count), *days, _share(delay.within))


def _column_row(column: ColumnCheck) -> tuple[str, ...]:
    counts = (_n(column.missing), _n(column.distinct))
    return (column.table, column.column, *counts, column.smallest, column.largest)


def _print(console: Console, columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    texts = ("table", "task", "part", "day", "surface", "conversion", "column", "set aside", "smallest", "largest")
    for name in columns:
        is_text = name in texts
        # On a narrow terminal names and numbers stay whole, and texts give way.
        is_whole = not is_text or name in ("table", "column")
        table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=is_whole)
    for row in rows:
        table.add_row(*map(Text, row))
    if table.row_count:
        console.print()
        console.print(table)


def _reasons(quarantined: dict[str, int]) -> str:
    return "; ".join(f"{_n(count)} {reason}" for reason, count in quarantined.items()) or "none"


def _n(count: int) -> str:
    return f"{count:,}"


def _share(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.2f}%"
