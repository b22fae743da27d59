"""Figures of a finished run for the documents: `python -m tests.benchmarks.collect --run runs/demo --name demo`.

Writes `<name>.json` (seconds and peak memory of each step), `<name>_output.txt` (what the run printed last),
`lift_<dataset>.json`, and `experiment_<dataset>_<name>.json` for each experiment that was made on the run. With
`--tests` it writes `tests.json` from the JUnit file of `make test ARGS="--junitxml=FILE"`.
"""

from __future__ import annotations

import shlex
from io import StringIO
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import typer
from rich.console import Console

from tests.benchmarks.figures.experiment_tables import keep_experiments
from tests.benchmarks.figures.results import OUTPUT_SUFFIX, RESULTS, ResultRow, check_finished, write_lift, write_rows
from trainers.report.schema import Report
from trainers.report.terminal import show

STEP, TESTS = "step", "tests"
_NOT_KEPT = ("steps", "training", "calibration", "curves", "drift", "freshness", "served")
COLUMNS = 80
"""Width of a terminal that says nothing of itself."""


def collect(run: Path, name: str, folder: Path = RESULTS) -> list[Path]:
    """Write the figures of a run.

    Raises:
        FileNotFoundError: The run has no report.
        ValueError: The report does not say its commit, machine or command.
    """
    report = published(Report.load(run), name)
    output = folder / f"{name}{OUTPUT_SUFFIX}"
    paths = [write_rows(name, step_rows(report, name), folder), write_lift(without_steps(report), folder)]
    output.write_text(printed(report, run, name))
    return [*paths, output]


def published(report: Report, name: str) -> Report:
    """The report with a command that works on any machine."""
    absent = [key for key in ("commit", "machine", "command") if getattr(report, key) is None]
    if absent:
        raise ValueError(f"a report must say its commit, machine and command (lacks {absent}); run in a git checkout")
    return report.model_copy(update={"command": portable(report.command or "", name)})


def portable(command: str, name: str) -> str:
    """A command without folders of this machine: raw data by its folder's name, the run under `runs/`."""
    words = shlex.split(command)
    for i, option in enumerate(words[:-1]):
        if option == "--path":
            words[i + 1] = Path(words[i + 1]).name
        if option == "--dataset" and words[i + 1].endswith((".yaml", ".yml")):
            words[i + 1] = Path(words[i + 1]).name
        if option in ("--out", "--run"):
            words[i + 1] = f"runs/{name}"
    return shlex.join(words)


def step_rows(report: Report, name: str) -> list[ResultRow]:
    """A row per step of the run, in order."""
    params = {"run": name, "dataset": report.dataset, "command": report.command or ""}
    return [
        ResultRow(
            name=STEP,
            params={**params, "step": step.name},
            unit="s",
            ours=round(step.seconds, 1),
            peak_mb=step.peak_mb,
            n=1,
            machine=report.machine or "",
            commit=report.commit or "",
        )
        for step in report.steps
    ]


def without_steps(report: Report) -> Report:
    """What `lift_<dataset>.json` keeps of a report: no steps, surfaces, curves, or what is shown day by day."""
    data = report.data.model_copy(update={"surfaces": ()}) if report.data else None
    retrieval = tuple(row.model_copy(update={"recall_curve": ()}) for row in report.retrieval)
    changes = dict.fromkeys(_NOT_KEPT, ()) | {"data": data, "retrieval": retrieval, "experiments": {}}
    return report.model_copy(update=changes)


def printed(report: Report, run: Path, name: str) -> str:
    """What the run printed last, with its folder under `runs/`."""
    text = StringIO()
    show(report, Console(file=text, width=COLUMNS), run, program=".venv/bin/headwater")
    lines = text.getvalue().replace(str(run), f"runs/{name}").splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def outcome_rows(junit: Path, machine: str, commit: str) -> list[ResultRow]:
    """Outcome of the tests, from pytest's JUnit file.

    Raises:
        ValueError: A test failed.
    """
    suites = ElementTree.parse(junit).getroot().iter("testsuite")
    keys = ("tests", "skipped", "failures", "errors", "time")
    found = [{key: float(suite.get(key, 0)) for key in keys} for suite in suites]
    total = {key: sum(suite[key] for suite in found) for key in found[0]}
    if total["failures"] + total["errors"]:
        raise ValueError(f"every test must pass (got {total}); mend them and run make test again")
    skipped = int(total["skipped"])
    return [
        ResultRow(
            name=TESTS,
            params={"command": "make test", "passed": int(total["tests"]) - skipped, "skipped": skipped},
            unit="s",
            ours=round(total["time"], 1),
            n=1,
            machine=machine,
            commit=commit,
        )
    ]


def main(
    run: Annotated[Path, typer.Option(help="Finished run.")] = Path("runs/demo"),
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "demo",
    tests: Annotated[Path | None, typer.Option(help="JUnit file of `make test`.")] = None,
    experiments: Annotated[bool, typer.Option("--experiments", help="Write those of the run alone.")] = False,
) -> None:
    """Write the figures of a finished run to tests/benchmarks/results."""
    check_finished(run)
    if not experiments:
        for path in collect(run, name):
            typer.echo(f"wrote {path}")
    report = Report.load(run)
    for path in keep_experiments(run, report.dataset, name, report.machine or "", RESULTS):
        typer.echo(f"wrote {path}")
    if tests is not None:
        typer.echo(f"wrote {write_rows(TESTS, outcome_rows(tests, report.machine or '', report.commit or ''))}")


if __name__ == "__main__":
    typer.run(main)
