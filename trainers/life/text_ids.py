"""The texts of a log's ids, for the release that answers with them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from trainers.data.event_log import EventLog

PIN_TEXTS = "pin_texts.parquet"


def write_text_ids(log: EventLog, folder: Path) -> dict[str, Any]:
    """Copy the texts of a log's Pins into a release's folder.

    Returns:
        What its manifest says of them: the key `text_ids`, or nothing where all ids are numbers.
    """
    user, pins = log.path / "keys_user.parquet", log.path / "keys_pin.parquet"
    if not user.exists() and not pins.exists():
        return {}
    if pins.exists():
        shutil.copyfile(pins, folder / PIN_TEXTS)
    return {"text_ids": {"user": user.exists(), "pins": PIN_TEXTS if pins.exists() else None}}
