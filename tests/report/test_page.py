"""The HTML page: complete, self-contained, and silent about what was not run."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trainers.report.page import render, write
from trainers.report.schema import Data, Report
from trainers.report.wording import INPUTS_LABELS, signed_pct, typeset

_VOID = {"meta", "br", "img", "hr", "link", "input", "wbr"}


class Page(HTMLParser):
    """Ids, references and sections of a page; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in _VOID:
            self._open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
                self.references.append(value or "")


@pytest.fixture(scope="module", name="html")
def html_fixture(report: Report) -> str:
    return render(report, Path("runs/demo"))


def test_page_has_every_lift_row(html: str, report: Report) -> None:
    for row in report.lift:
        assert f"{row.roc_auc:.4f}" in html
        assert INPUTS_LABELS[row.inputs] in html
        if row.roc_auc_lift_pct is not None:
            assert typeset(signed_pct(row.roc_auc_lift_pct)) in html


def test_page_is_whole_and_refers_only_to_itself(html: str) -> None:
    page = Page(html)

    assert {reference[:1] for reference in page.references} == {"#"}
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert "@import" not in html
    assert "url(http" not in html


def test_page_has_each_id_once(html: str) -> None:
    ids = Page(html).ids

    assert len(ids) == len(set(ids))


def test_page_leaves_colours_to_the_style_sheet(html: str) -> None:
    drawings = html[html.index("<svg") : html.rindex("</svg>")]

    assert "var(--series-1)" in drawings
    assert "#010203" not in drawings
    assert "#000000" not in drawings
    assert "prefers-color-scheme: dark" in html


def test_page_says_that_a_lift_is_not_significant(html: str) -> None:
    assert "shows no significant lift (+0.44%, 95% interval \u22120.44% to +1.32%)" in html


def test_page_names_licence_and_citation(html: str) -> None:
    assert "Licence: CC BY-SA 4.0 (invented)." in html
    assert "An invented log. Proceedings of Nothing" in html


def test_page_counts_quarantined_rows_by_reason(html: str) -> None:
    assert "5,460 duplicate; 96 in future" in html


def test_page_shows_how_to_serve_only_when_it_knows_where(report: Report, html: str) -> None:
    assert "headwater serve --run runs/demo" in html
    assert "headwater serve" not in render(report)


def test_page_has_no_section_for_figures_that_were_not_run(bare: Report) -> None:
    html = render(bare)

    assert "This run did not measure lift." in html
    assert Page(html).ids == []
    assert "<svg" not in html
    assert "None" not in html


def test_page_escapes_what_people_wrote(bare: Report) -> None:
    data = Data(title="<b>log</b> & more", impression="x <script>alert(1)</script>", click="c", num_days=1)
    html = render(Report(dataset="d", seeds=(1,), window=bare.window, data=data))

    assert "<script>" not in html
    assert "&lt;b&gt;log&lt;/b&gt; &amp; more" in html


def test_page_writes_windows_in_utc_with_the_hour_where_it_matters(bare: Report) -> None:
    start = datetime.fromisoformat("2022-05-01T00:00:00+08:00")
    window = bare.window.model_copy(update={"test": (start, datetime(2022, 5, 9, tzinfo=UTC))})

    html = render(bare.model_copy(update={"window": window}))

    assert "2022-04-30 16:00" in html
    assert ">2022-05-09<" in html


def test_page_is_the_same_for_the_same_report(report: Report, html: str) -> None:
    assert render(report, Path("runs/demo")) == html


def test_write_puts_one_small_file_beside_the_report(report: Report, tmp_path: Path) -> None:
    path = write(report, tmp_path)

    assert path == tmp_path / "report.html"
    assert path.stat().st_size < 1_500_000
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-0.20% to -0.10%", "\u22120.20% to \u22120.10%"),
        ("(-1.0", "(\u22121.0"),
        ("2022-05-06", "2022-05-06"),
        ("a-1", "a-1"),
    ],
)
def test_typeset_changes_signs_but_no_hyphens(text: str, expected: str) -> None:
    assert typeset(text) == expected


def test_leads_of_the_released_two_tower_are_shown_where_they_were_measured(report: Report, html: str) -> None:
    first, *others = report.retrieval
    led = first.model_copy(update={"released_lead": 0.0777, "released_lead_ci95": (0.06, 0.09)})
    shown = render(report.model_copy(update={"retrieval": (led, *others)}))
    assert "+0.0777 (+0.0600 to +0.0900)" in shown
    assert "lead of the released" in shown
    assert "lead of the released" not in html
