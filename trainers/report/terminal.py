"""What a run prints when it ends: the lift table, the retrieval table, and what to try next."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from trainers.report.schema import PAGE_FILE, REPORT_FILE, Example, LiftRow, Report
from trainers.report.wording import (
    INPUTS_LABELS,
    find_task,
    gain_text,
    gap_text,
    headline,
    interval_pct,
    lift_groups,
    signed_pct,
    task_meaning,
    task_title,
    verdict,
)

_STYLES = {"higher": "green", "lower": "red"}


def show(report: Report, console: Console, run_dir: Path, *, program: str = "headwater", port: int = 8080) -> None:
    """Print the summary of a run; fits 80 columns and reads without colour.

    Args:
        program: How this shell calls the command line, such as `.venv/bin/headwater`.
        port: Where the suggested server will listen.
    """
    for (task, ranker), rows in lift_groups(report).items():
        console.print(_lift_table(report, task, ranker, rows))
    if report.retrieval:
        console.print(_retrieval_table(report))
    console.print(headline(report), highlight=False, markup=False)
    console.print()
    _show_files(console, run_dir)
    if report.example:
        console.print("Try it:")
        for line in commands(report.example, run_dir, program=program, port=port):
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def commands(example: Example, run_dir: Path, *, program: str = "headwater", port: int = 8080) -> list[str]:
    """Shell lines that serve the run and ask it for a recommendation and a ranking."""
    lines = [f"{program} serve --run {shlex.quote(str(run_dir))} &"]
    request: dict[str, object] = {"user_id": example.user_id, "surface": example.surface}
    bodies = {"recommend": request | {"k": 10}}
    if example.pin_ids:
        bodies["rank"] = request | {"pin_ids": list(example.pin_ids)}
    for route, body in bodies.items():
        lines.append(f"curl -s localhost:{port}/v1/{route} -d {shlex.quote(json.dumps(body))}")
    return lines


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _lift_table(report: Report, task: str, ranker: str, rows: list[LiftRow]) -> Table:
    meaning = task_meaning(find_task(report, task))
    table = _table(f"{task_title(task)}{f' ({meaning})' if meaning else ''}, {ranker}, {rows[0].n_test:,} test rows")
    table.add_column("embeddings")
    for name in ("ROC AUC", "PR AUC", "log loss"):
        table.add_column(name, justify="right")
    table.add_column("lift (95% interval)")
    for row in rows:
        lift = _lift_text(row)
        figures = (f"{row.roc_auc:.4f}", f"{row.pr_auc:.4f}", f"{row.log_loss:.4f}")
        table.add_row(INPUTS_LABELS[row.inputs], *figures, lift, style=_STYLES.get(verdict(row)))
    for optimum in report.optimum:
        if optimum.task == task:
            loss = "" if optimum.log_loss is None else f"{optimum.log_loss:.4f}"
            said = ": ".join(filter(None, ("true probabilities", gap_text(report, rows))))
            table.add_row("optimum", f"{optimum.roc_auc:.4f}", "", loss, said, style="dim")
    return table


def _lift_text(row: LiftRow) -> str:
    if row.roc_auc_lift_pct is None:
        return ""
    if row.roc_auc_lift_ci95 is None:
        return signed_pct(row.roc_auc_lift_pct)
    return f"{signed_pct(row.roc_auc_lift_pct)} ({interval_pct(row.roc_auc_lift_ci95)})"


def _retrieval_table(report: Report) -> Table:
    table = _table("Retrieval")
    table.add_column("model", overflow="fold")
    for name in ("Recall@20", "nDCG@20", "users"):
        table.add_column(name, justify="right")
    table.add_column("Recall@20 gain (95% interval)")
    for row in report.retrieval:
        figures = (f"{row.recall_at_20:.4f}", f"{row.ndcg_at_20:.4f}", f"{row.n_users:,}")
        table.add_row(row.model, *figures, gain_text(row))
    return table


def _show_files(console: Console, run_dir: Path) -> None:
    for name in (PAGE_FILE, REPORT_FILE):
        if (run_dir / name).exists():
            console.print(f"Report: {run_dir / name}", soft_wrap=True, highlight=False, markup=False)
