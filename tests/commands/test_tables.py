"""Tables for people, at the width of a program that reads, of a wide terminal and of a narrow one."""

from __future__ import annotations

import pytest

from trainers.commands.tables import aligned

ROWS = [
    ("version", "state", "read by"),
    ("ctr_v1", "superseded", "r-1b9ce17ad233 (superseded), ads_ranker"),
    ("ctr_v2", "live", "nothing"),
]


def test_rows_keep_their_line_when_nobody_says_how_wide_the_terminal_is() -> None:
    assert aligned(ROWS).splitlines() == [
        "version  state       read by",
        "ctr_v1   superseded  r-1b9ce17ad233 (superseded), ads_ranker",
        "ctr_v2   live        nothing",
    ]


def test_last_column_is_wrapped_to_the_terminal() -> None:
    assert aligned(ROWS, width=50).splitlines() == [
        "version  state       read by",
        "ctr_v1   superseded  r-1b9ce17ad233 (superseded),",
        "                     ads_ranker",
        "ctr_v2   live        nothing",
    ]


def test_rows_become_blocks_where_the_last_column_has_no_room() -> None:
    assert aligned(ROWS, width=38).splitlines() == [
        "ctr_v1",
        "  state    superseded",
        "  read by  r-1b9ce17ad233",
        "           (superseded), ads_ranker",
        "ctr_v2",
        "  state    live",
        "  read by  nothing",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, aligned(ROWS, indent="    ", width=width).splitlines())) <= width
