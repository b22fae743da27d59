"""Which Pins were pushed, and when: what a server looks at to find them before an index has them.

A line per Pin, `<Unix time in microseconds> <pin_id>`, in `data/pushed_pins.txt` of the feature repo; only the newest
lines are kept. Writers hold the turn of a push.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from feature_repo.contract import write_atomically
from feature_repo.stores.packed.times import to_micros

LEDGER = "pushed_pins.txt"
MAX_BYTES = 4 << 20
"""Size from which the older half of the lines goes."""


def note_pins(data_dir: Path, pin_ids: Sequence[int], moment: datetime) -> None:
    """Tell that Pins were pushed."""
    file, micros = data_dir / LEDGER, to_micros(moment)
    with file.open("a") as ledger:
        ledger.write("".join(f"{micros} {pin}\n" for pin in pin_ids))
    if file.stat().st_size > MAX_BYTES:
        lines = file.read_text().splitlines(keepends=True)
        write_atomically(file, "".join(lines[len(lines) // 2 :]))


def pins_since(data_dir: Path, moment: datetime, most: int) -> list[int]:
    """Pins pushed after a moment, each once, the last pushed last; at most so many."""
    file, after = data_dir / LEDGER, to_micros(moment)
    found: dict[int, None] = {}
    for line in file.read_text().splitlines() if file.is_file() else ():
        micros, _, pin = line.partition(" ")
        # A line that a kill cut short is none.
        if micros.isdecimal() and pin.isdecimal() and int(micros) > after:
            found.pop(int(pin), None)
            found[int(pin)] = None
    return list(found)[-most:]


def ledger_stamp(data_dir: Path) -> tuple[int, int, int] | None:
    """What changes whenever a Pin is pushed; none before the first."""
    try:
        stat = (data_dir / LEDGER).stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
