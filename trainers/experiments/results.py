"""Tables of experiments as a run keeps them: `experiments/<name>.json`, which the report picks up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feature_repo.contract import write_atomically
from trainers.markers import read_marker

FOLDER = "experiments"
LAST_STEP = "publish"
"""Step that a run must have finished before anything is studied on it."""
Table = tuple[dict[str, Any], ...]


def table_file(run: Path, name: str) -> Path:
    """Where an experiment's table lies."""
    return run / FOLDER / f"{name}.json"


def write_table(run: Path, name: str, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Path:
    """Replace an experiment's table in one step.

    Args:
        facts: How the table was made: seeds, commit and the like.
    """
    file = table_file(run, name)
    table = {**facts, "made_from": made_from(run), "rows": list(rows)}
    write_atomically(file, json.dumps(table, indent=1) + "\n")
    return file


def read_tables(run: Path) -> dict[str, Table]:
    """Tables of a run by the experiment's name; those that were made from vectors that the run no longer has are left
    out."""
    tables = {file.stem: json.loads(file.read_text()) for file in sorted((run / FOLDER).glob("*.json"))}
    current = made_from(run)
    return {
        name: tuple(_row(row) for row in table["rows"])
        for name, table in tables.items()
        if table["made_from"] == current
    }


def made_from(run: Path) -> str:
    """Fingerprint of the embeddings that a run has published; empty where it has none."""
    marker = read_marker(run, LAST_STEP)
    return marker.fingerprint if marker else ""


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
