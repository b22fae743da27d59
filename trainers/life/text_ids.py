"""The texts of a log's ids, for the release that answers with them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from trainers.data.event_log import EventLog

PIN_TEXTS = "pin_texts.parquet"


def write_text_ids(log: EventLog, folder: Path) -> dict[str, Any]:
    """Copy the texts of a log's Pins into a release's folder.

    Returns:
        What its manifest says of them: the key `text_ids`, or nothing where all ids are numbers.
    """
    user, pins = _texts_file(log, "user"), _texts_file(log, "pin")
    if not user.exists() and not pins.exists():
        return {}
    if pins.exists():
        shutil.copyfile(pins, folder / PIN_TEXTS)
    return {"text_ids": {"user": user.exists(), "pins": PIN_TEXTS if pins.exists() else None}}


def ids_as_written(log: EventLog, entity: str, keys: Sequence[int]) -> list[int | str]:
    """Keys of an entity as the log's own files wrote them: the texts behind them, or the numbers that they are."""
    file = _texts_file(log, entity)
    if not file.exists():
        return list(keys)
    name = f"{entity}_id"
    table = pq.read_table(file, filters=[(name, "in", list(keys))])
    texts = dict(zip(table[name].to_pylist(), table["key"].to_pylist(), strict=True))
    return [texts.get(key, key) for key in keys]


def _texts_file(log: EventLog, entity: str) -> Path:
    return log.path / f"keys_{entity}.parquet"
