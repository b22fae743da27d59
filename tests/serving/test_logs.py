"""Log lines of the server are seen, unless someone else has set up logging."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from serving.logs import configure_logging
from tests.imports import ROOT

SCRIPT = """
import logging
{before}
from serving.logs import configure_logging
configure_logging("info")
configure_logging("info")
logging.getLogger("serving.shadow").info("event=seen pins=%d", 3)
logging.getLogger("serving.shadow").debug("event=unseen")
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", "level=INFO logger=serving.shadow event=seen pins=3"),
        ("logging.basicConfig(format='mine %(message)s')", "mine event=seen pins=3"),
    ],
)
def test_log_lines_go_to_standard_error_once(before: str, expected: str) -> None:
    command = [sys.executable, "-c", SCRIPT.format(before=before)]
    (line,) = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr.splitlines()
    assert line.endswith(expected)


def test_level_is_the_one_that_was_asked_for() -> None:
    before = logging.getLogger("serving").level
    configure_logging("warning")
    assert logging.getLogger("serving.shadow").getEffectiveLevel() == logging.WARNING
    logging.getLogger("serving").setLevel(before)
