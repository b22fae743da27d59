"""Where a staged row comes from: its file, its row and the file's own names of columns, for errors to act on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

SOURCE_FILE, SOURCE_ROW = "_file", "_row"
"""Staged columns that say which row of which file a row comes from; no column of the event log begins like this."""
WITHOUT_PLACES = f"COLUMNS(lambda c: c NOT IN ('{SOURCE_FILE}', '{SOURCE_ROW}'))"
"""SQL of all columns but those."""
COLUMNS_FILE = "source_columns.json"


def write_columns(staging: Path, columns: Mapping[str, Mapping[str, str]]) -> None:
    """Keep what each file calls the columns of the event log.

    Args:
        columns: By file as `SOURCE_FILE` has it, the file's column by that of the event log.
    """
    (staging / COLUMNS_FILE).write_text(json.dumps(columns))


def read_columns(staging: Path) -> dict[str, dict[str, str]]:
    """What `write_columns` kept; empty where files were not read by a declaration."""
    path = staging / COLUMNS_FILE
    found: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.is_file() else {}
    return found
