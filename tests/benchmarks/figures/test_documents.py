"""Documents made from figures; the report behind them is invented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.benchmarks.collect import collect, outcome_rows, portable, published
from tests.benchmarks.document import benchmarks_text, readme_text
from tests.benchmarks.feast_client import FEAST_CLIENT
from tests.benchmarks.figures import tables
from tests.benchmarks.figures.experiment_tables import keep_experiments
from tests.benchmarks.figures.push_tables import PUSH
from tests.benchmarks.figures.results import ResultRow, Results, check_finished, load, write_rows
from tests.report.conftest import fake_report

README = "".join(f"<!-- {name} -->\nold\n<!-- /{name} -->\n" for name in ("demo-output", "test-output", "results"))


def row(name: str = FEAST_CLIENT, **changes: object) -> ResultRow:
    whole = {"name": name, "unit": "s", "stock": 0.25, "machine": "invented", "commit": "0123", "n": 7} | changes
    return ResultRow.model_validate(whole)


@pytest.fixture(name="results")
def results_fixture(tmp_path: Path) -> Results:
    run = tmp_path / "runs" / "invented"
    run.mkdir(parents=True)
    fake_report().save(run)
    folder = tmp_path / "results"
    folder.mkdir()
    collect(run, "demo", folder)
    client = {"dataset": "invented", "call": "get_online_features", "service": "ranking", "values": 40, "equal": 39}
    write_rows(FEAST_CLIENT, [row(params={**client, "command": "read"}, spread=0.05, peak_mb=444.4)], folder)
    return load(folder)


def test_collect_keeps_a_row_per_step_with_seconds_and_peak(results: Results) -> None:
    steps = {str(each.params["step"]): (each.ours, each.peak_mb) for each in results.named("step")}
    assert steps == {
        "ingest": (4.4, 444.0),
        "features": (22.2, 888.0),
        "upstream": (222.2, 2222.0),
        "evaluate": (111.1, 2444.0),
    }


def test_collect_keeps_lift_and_retrieval_as_they_were_reported(results: Results) -> None:
    (kept,), full = results.lift, fake_report()
    assert (kept.lift, kept.retrieval, kept.seeds, kept.commit) == (full.lift, full.retrieval, full.seeds, full.commit)
    assert kept.steps == ()


def test_collect_keeps_what_the_run_printed_with_its_folder_under_runs(results: Results) -> None:
    assert "no embeddings" in results.demo_output
    assert "Report: runs/demo/report.json" in results.demo_output
    assert "serve --run runs/demo &" in results.demo_output


def test_collect_refuses_a_report_without_its_commit() -> None:
    with pytest.raises(ValueError, match=r"lacks \['commit'\]"):
        published(fake_report().model_copy(update={"commit": None}), "demo")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "headwater run --dataset kuairand --path /data/x/kuairand_pure --seed 1 --out /tmp/a",
            "headwater run --dataset kuairand --path kuairand_pure --seed 1 --out runs/demo",
        ),
        ("headwater run --dataset /home/me/shop.yaml --out a", "headwater run --dataset shop.yaml --out runs/demo"),
        ("headwater run --dataset synthetic --scale 0.2", "headwater run --dataset synthetic --scale 0.2"),
    ],
)
def test_portable_command_names_no_folder_of_the_machine(command: str, expected: str) -> None:
    assert portable(command, "demo") == expected


def test_step_table_adds_up_seconds_and_takes_the_highest_peak(results: Results) -> None:
    assert "| **all** | **359.9** | **2,444** |" in tables.step_table(results.named("step"))


def test_benchmarks_show_every_arm_retrieval_and_slice_with_its_interval(results: Results) -> None:
    text = benchmarks_text(results)
    assert "| user + Pin | 0.7155 | 0.6148 | 0.6000 | 0.6174 | 0.0111 | +2.22% [+1.89% to +2.55%] |" in text
    assert "| two_tower | 0.1444 [0.1300 to 0.1580] |  | 0.0777 | 2,222 |" in text
    assert "0.1888 [0.1740 to 0.2030] | +0.0444 (+0.0300 to +0.0600) | 0.0999 | 2,222 |" in text
    assert "| CTR | surface | 0 | 22,222 | 0.7000 | 0.7140 | +2.00% [+1.30% to +2.70%] |" in text
    assert "| `user_embedding_ctr_v1` | 81.0 % | 13.0 % | 6.0 % | 11.5 | 22,222 |" in text


def test_benchmarks_name_command_seeds_commit_source_and_licence(results: Results) -> None:
    text = benchmarks_text(results)
    assert "`headwater run --dataset invented --out runs/demo --seed 1`, seeds 1, 2, commit `0123456789" in text
    assert "Data: Invented video log; A. Nobody" in text
    assert "licence: CC BY-SA 4.0 (invented)." in text


def test_benchmarks_show_what_the_client_read_and_how_much_of_it_was_equal(results: Results) -> None:
    line = "| invented | get_online_features | ranking | 7 | 40 | 39 | 0.25 | 0.05 | 444 |"
    assert line in benchmarks_text(results)


@pytest.mark.parametrize("dataset", sorted(tables.ATTRIBUTION))
def test_known_datasets_are_attributed_with_source_licence_and_changes(dataset: str) -> None:
    text = tables.attribution(fake_report().model_copy(update={"dataset": dataset}))
    assert "](https://" in text
    assert ("CC BY-SA 4.0" in text) or ("CC0" in text)
    assert "Changed:" in text


def test_benchmarks_say_whether_a_push_takes_a_second_at_most() -> None:
    params = {"way": "POST /v1/push", "dataset": "invented", "versions": 2, "dim": 16, "load_average": 1.2}
    quick = row(PUSH, params={**params, "first_ms": 1500.0, "p99_ms": 1000.0}, stock=None, ours=200.4)
    slow = row(PUSH, params={**params, "first_ms": 1500.0, "p99_ms": 1000.1}, stock=None, ours=200.4)
    line = "| `POST /v1/push` | invented | 2 × 16 | 7 | 200 | 1,000 | 1,500 | 1.2 | p99 ≤ 1 s: "
    assert line + "met |" in benchmarks_text(Results(rows=(quick,)))
    assert line + "**missed** |" in benchmarks_text(Results(rows=(slow,)))


def test_benchmarks_without_figures_have_no_empty_section() -> None:
    assert "##" not in benchmarks_text(Results())


def test_benchmarks_show_experiments_with_a_table_per_kind_of_figure(tmp_path: Path) -> None:
    change = {"change_to_fresh_pct": -1.5, "change_to_fresh_ci95": [-2.0, -1.0]}
    ranker = {"vectors": "fresh", "n_test": 40, "roc_auc": 0.75}
    retrieval = {"vectors": "1 day older", "recall_at_20": 0.125, **change}
    made = {"seeds": [1, 2], "retrains": 2, "commit": "0123456789ab", "made": "", "made_from": ""}
    file = tmp_path / "run" / "experiments" / "staleness.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({**made, "rows": [ranker, retrieval]}))
    keep_experiments(tmp_path / "run", "invented", "demo", "2 cores", tmp_path)
    text = benchmarks_text(load(tmp_path))
    assert "| fresh | 0.7500 |" in text
    assert "| 1 day older | 0.1250 | -1.50% [-2.00% to -1.00%] |" in text
    command = "headwater experiment staleness --run runs/demo --seeds 2 --retrains 2"
    assert f"`{command}`, seeds 1, 2, commit `0123456789ab`, 2 cores." in text


def test_readme_blocks_are_replaced_and_the_rest_stays(results: Results) -> None:
    text = readme_text(results, f"before\n{README}after\n")
    assert text.startswith("before\n<!-- demo-output -->\n```console\n$ make demo\n")
    assert text.endswith("<!-- /results -->\nafter\n")
    assert "old" not in text
    assert "It took 6.0 minutes after the install and at most 2,444 MiB (2 CPU cores, 24 GB" in text
    assert "| invented | CTR ROC AUC (click) | 0.7000 | 0.7155, +2.22% [+1.89% to +2.55%] |" in text
    assert readme_text(results, text) == text


def test_readme_without_a_block_is_refused(results: Results) -> None:
    with pytest.raises(ValueError, match="<!-- results -->"):
        readme_text(results, README.replace("<!-- results -->", ""))


def test_outcome_rows_count_what_passed_and_what_was_skipped(tmp_path: Path) -> None:
    junit = tmp_path / "tests.xml"
    junit.write_text('<testsuites><testsuite tests="12" skipped="2" failures="0" time="3.25"/></testsuites>')
    (found,) = outcome_rows(junit, "invented", "0123")
    assert (found.params["passed"], found.params["skipped"], found.ours) == (10, 2, 3.2)


def test_result_rows_leave_out_what_was_not_run(tmp_path: Path) -> None:
    path = write_rows("some", [row()], tmp_path)
    (stored,) = json.loads(path.read_text())
    assert set(stored) == {"name", "params", "unit", "stock", "n", "machine", "commit"}


@pytest.mark.parametrize(
    ("text", "message"),
    [('[{"name": "a", "unit": "s", "peak_mb": null}]', "got null for peak_mb"), ('{"rows": []}', "list of rows")],
)
def test_result_files_with_nulls_or_without_rows_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_result_rows_refuse_unknown_keys() -> None:
    with pytest.raises(ValidationError, match="ratio"):
        row(ratio=2.0)


def test_outcome_rows_refuse_a_failed_test(tmp_path: Path) -> None:
    junit = tmp_path / "tests.xml"
    junit.write_text('<testsuites><testsuite tests="12" skipped="0" failures="1" errors="0" time="3"/></testsuites>')
    with pytest.raises(ValueError, match="every test must pass"):
        outcome_rows(junit, "invented", "0123")


def test_unfinished_run_is_refused_with_the_command_that_finishes_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"has no report\.json\); run make demo first"):
        check_finished(tmp_path)
