"""What a run prints when it ends."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

from rich.console import Console

from serving.routes.rank import RankRequest
from serving.routes.recommend import RecommendRequest
from trainers.report.schema import Example, Report
from trainers.report.terminal import commands, show


def shown(report: Report, run_dir: Path) -> str:
    file = io.StringIO()
    show(report, Console(file=file, width=80), run_dir)
    return file.getvalue()


def test_summary_has_no_escape_codes_when_not_a_terminal(report: Report, tmp_path: Path) -> None:
    assert "\x1b" not in shown(report, tmp_path)


def test_summary_fits_80_columns_and_keeps_every_figure(report: Report) -> None:
    text = shown(report, Path("runs/demo"))

    assert max(len(line.rstrip()) for line in text.splitlines() if not line.startswith("curl")) <= 80
    for row in report.lift:
        assert f"{row.roc_auc:.4f}" in text
    for retrieval in report.retrieval:
        assert f"{retrieval.recall_at_20:.4f}" in text
    assert "…" not in text


def test_summary_says_when_a_lift_is_not_significant(report: Report, tmp_path: Path) -> None:
    assert "no significant lift" in " ".join(shown(report, tmp_path).split())


def test_summary_names_the_files_that_exist(report: Report, tmp_path: Path) -> None:
    path = report.save(tmp_path)
    text = shown(report, tmp_path)

    assert f"Report: {path}" in text
    assert "report.html" not in text


def test_summary_of_a_bare_report_suggests_no_request(bare: Report, tmp_path: Path) -> None:
    text = shown(bare, tmp_path)

    assert "This run did not measure lift." in text
    assert "curl" not in text


def test_suggested_requests_are_what_the_server_accepts() -> None:
    lines = commands(Example(user_id=712, surface="it's 1", pin_ids=(3, 14)), Path("runs/my demo"))
    serve, recommend, rank = (shlex.split(line) for line in lines)

    assert serve == ["headwater", "serve", "--run", "runs/my demo", "&"]
    assert recommend[2] == "localhost:8080/v1/recommend"
    assert RecommendRequest.model_validate(json.loads(recommend[-1])).surface == "it's 1"
    assert RankRequest.model_validate(json.loads(rank[-1])).pin_ids == [3, 14]
