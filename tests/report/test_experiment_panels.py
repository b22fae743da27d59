"""Studies as plots and tables of the report."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.report.conftest import fake_report
from trainers.report.experiment_panels import panel

EXPERIMENTS = fake_report().experiments


def texts(svg: str) -> list[str]:
    """Words that a drawing shows."""
    return re.findall(r"<text\b[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize(
    ("name", "headings", "shown"),
    [
        ("upgrade", ["ROC AUC of version v's consumer"], {"retrained, Procrustes", "\N{MINUS SIGN}0.11%"}),
        ("aggregation", ["Warm start"], {"latest", "+1.11%"}),
        (
            "staleness",
            ["Relative change of ROC AUC", "Relative change of Recall@20"],
            {"CTR ranker", "CTR ranker, missing", "days older than the last refresh"},
        ),
        ("refresh_cost", ["ROC AUC with refreshed vectors"], {"latest", "\N{MINUS SIGN}0.03%"}),
    ],
)
def test_study_shows_its_changes(name: str, headings: list[str], shown: set[str]) -> None:
    found = panel(name, EXPERIMENTS[name])
    assert [plot.title for plot in found.plots] == headings
    assert shown <= set(texts(found.plots[0].svg))
    assert found.question


def test_change_over_age_begins_at_none_and_ends_at_the_oldest() -> None:
    rankers, retrieval = panel("staleness", EXPERIMENTS["staleness"]).plots
    assert {"0", "3"} <= set(texts(rankers.svg))
    assert "two-tower" in texts(retrieval.svg)
    assert "CTR ranker" not in texts(retrieval.svg)


def test_rows_of_another_figure_have_a_table_of_their_own() -> None:
    rankers, retrieval = panel("staleness", EXPERIMENTS["staleness"]).tables
    assert rankers.columns == ["model", "vectors", "ROC AUC", "gAUC", "against fresh [95 %]"]
    assert rankers.rows[1] == ["CTR ranker", "3 days older", "0.7777", "0.6666", "-0.44% [-0.66% to -0.22%]"]
    assert retrieval.columns == ["model", "vectors", "Recall@20", "against fresh [95 %]"]
    assert (rankers.num_numbers, retrieval.num_numbers) == (3, 2)


def test_cost_has_shares_in_percent_and_whole_seconds() -> None:
    (table,) = panel("refresh_cost", EXPERIMENTS["refresh_cost"]).tables
    refresh = dict(zip(table.columns, table.rows[1], strict=True))
    assert (refresh["CPU s"], refresh["of its CPU s"]) == ("22", "5.0%")


@pytest.mark.parametrize("rows", [({"weight": 0.5, "score": 0.25},), ()])
def test_study_of_another_kind_is_a_table(rows: tuple[dict[str, Any], ...]) -> None:
    found = panel("half_life", rows)
    assert (found.title, found.question, found.plots) == ("Half life", "", [])
    assert [table.rows for table in found.tables] == [[["0.5000", "0.2500"]] for _ in rows]


def test_change_without_an_interval_stands_alone() -> None:
    """Few users have either label there: the change is shown, and nothing is said of how certain it is."""
    rows = [
        {key: value for key, value in row.items() if key != "change_to_fresh_ci95"} for row in EXPERIMENTS["staleness"]
    ]
    found = panel("staleness", rows)
    assert found.tables[0].rows[1][-1] == "-0.44%"
    assert "CTR ranker" in texts(found.plots[0].svg)
