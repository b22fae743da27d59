"""Documents that are made from committed figures: `python -m tests.benchmarks.document`.

Writes `docs/benchmarks.md` and the marked blocks of `README.md`; nobody types a figure by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from feature_repo.contract import write_atomically
from tests.benchmarks.collect import STEP, TESTS
from tests.benchmarks.feast_client import FEAST_CLIENT
from tests.benchmarks.figures import tables
from tests.benchmarks.figures.experiment_tables import experiment_sections
from tests.benchmarks.figures.push_tables import PUSH, push_sections
from tests.benchmarks.figures.results import ResultRow, Results, load
from tests.benchmarks.figures.serving_tables import PROMOTE, ROUTES, serving_sections
from tests.benchmarks.figures.store_tables import TITLES, store_sections
from tests.benchmarks.figures.training_tables import training_sections
from trainers.report.schema import Report

ROOT = Path(__file__).parents[2]
BENCHMARKS, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
TARGET_S, TARGET_MB = 480, 4096
"""What the demo may cost at most: wall time after the install, and resident memory."""

INTRODUCTION = """\
# Benchmarks

Made by `python -m tests.benchmarks.document` from `tests/benchmarks/results/`; don't edit.
A figure that was not run is absent. [evaluation.md](evaluation.md) says how each is made.
"""


def documents(results: Results, readme: str) -> dict[Path, str]:
    """Text of every generated document."""
    return {BENCHMARKS: benchmarks_text(results), README: readme_text(results, readme)}


def benchmarks_text(results: Results) -> str:
    """The text of `docs/benchmarks.md`."""
    return "\n".join(
        [
            INTRODUCTION,
            *_runs(results),
            *_lift(results),
            *experiment_sections(results.experiments),
            *_client(results),
            *_stores(results),
            *training_sections(results.rows),
            *serving_sections(results.named(PROMOTE), [row for name in ROUTES for row in results.named(name)]),
            *push_sections(results.named(PUSH)),
            *_tests(results),
        ]
    )


def _runs(results: Results) -> Iterator[str]:
    rows = results.named(STEP)
    for name in dict.fromkeys(row.params["run"] for row in rows):
        steps = [row for row in rows if row.params["run"] == name]
        yield f"## Time and memory: {name}\n"
        yield f"{_origin(steps[0])} Installation is not in it; the step `report` takes about a second.\n"
        yield tables.step_table(steps)
        if name == "demo":
            yield f"Goal: at most {TARGET_S} s and {TARGET_MB} MiB.\n"


def _lift(results: Results) -> Iterator[str]:
    for report in results.lift:
        yield f"## Lift and retrieval: {report.dataset}\n"
        yield f"{tables.provenance(report)}\n"
        yield f"{tables.attribution(report)}\n"
        yield from _definitions(report)
        yield tables.lift_tables(report)
        if report.retrieval:
            yield tables.retrieval_table(report.retrieval)
        if report.embeddings:
            yield "What the CTR test impressions got when they asked for a vector:\n"
            yield tables.coverage_table(report)
        if report.slices:
            yield "Parts of the test rows, user and Pin embeddings against none; one interval in twenty misses:\n"
            yield tables.slice_table(report.slices)


def _definitions(report: Report) -> Iterator[str]:
    if report.data is not None:
        said = {"Impression": report.data.impression, "Click": report.data.click, "Conversion": report.data.conversion}
        yield "\n".join(f"- {what}: {text}" for what, text in said.items() if text) + "\n"
    if report.intervals:
        yield f"{report.intervals}\n"


def _client(results: Results) -> Iterator[str]:
    rows = results.named(FEAST_CLIENT)
    if rows:
        yield "## What a stock Feast client reads back\n"
        yield (
            "A second process, started elsewhere, calls nothing but `feast`. Each value that it gets is compared with "
            "the newest rows of the offline files.\n"
        )
        yield tables.client_table(rows)
        yield f"{_origin(rows[0])}\n"
        yield from (
            f"{tables.attribution(each)}\n" for each in results.lift if each.dataset == rows[0].params["dataset"]
        )


def _stores(results: Results) -> Iterator[str]:
    rows = [row for row in results.rows if row.name in TITLES]
    if rows:
        yield "## Stores\n"
        yield (
            "Ours, Feast's own parts and the bare clients do the same work in turns, each in a process of its own. "
            "Figures are medians, or quantiles of all calls; spread is the largest repetition less the smallest. Peaks "
            "are of the whole process, in which `import feast` takes about 400 MiB. A way that takes too much memory "
            "or time is stopped, and one that fails at a size is not tried again; its column says at what or why.\n"
        )
        yield from store_sections(rows)


def _tests(results: Results) -> Iterator[str]:
    for row in results.named(TESTS):
        yield "## Tests\n"
        yield f"{tests_line(row)}\n\n{_origin(row)}\n"


def tests_line(row: ResultRow) -> str:
    """Outcome of the tests as pytest words it."""
    return f"{row.params['passed']} passed, {row.params['skipped']} skipped in {row.ours:.2f}s"


def _origin(row: ResultRow) -> str:
    return f"`{row.params['command']}`, commit `{row.commit}`, {row.machine}."


def readme_text(results: Results, readme: str) -> str:
    """The README with its marked blocks filled; a block without figures says how to get them."""
    blocks = {
        "demo-output": _demo_block(results),
        "test-output": _test_block(results),
        "results": _results_block(results.lift),
    }
    for name, text in blocks.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", flags=re.DOTALL)
        if not pattern.search(readme):
            raise ValueError(
                f"README.md must have the block <!-- {name} --> … <!-- /{name} --> (got none); put it back"
            )
        readme = pattern.sub(lambda found, text=text: f"{found[1]}{text}{found[2]}", readme)  # type: ignore[misc]
    return readme


def _console(command: str, output: str) -> str:
    return f"```console\n$ {command}\n{output}```\n"


def _demo_block(results: Results) -> str:
    return _console("make demo", results.demo_output) + _demo_cost(results)


def _demo_cost(results: Results) -> str:
    steps = [row for row in results.named(STEP) if row.params["run"] == "demo"]
    if not steps:
        return ""
    seconds = sum(row.ours or 0.0 for row in steps)
    peak_mb = max(row.peak_mb or 0.0 for row in steps)
    return (
        f"\nIt took {seconds / 60:.1f} minutes after the install and at most {peak_mb:,.0f} MiB "
        f"({steps[0].machine}; [by step](docs/benchmarks.md)).\n"
    )


def _test_block(results: Results) -> str:
    return _console("make test", "".join(f"{tests_line(row)}\n" for row in results.named(TESTS)))


def _results_block(reports: tuple[Report, ...]) -> str:
    if not reports:
        return "Not measured yet.\n"
    lines = [tables.table(tables.RESULTS_HEADER, tables.result_rows(reports))]
    lines += [f"{tables.attribution(report)}\n" for report in reports]
    return "\n".join(lines)


def main(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when a document is old.")] = False,
) -> None:
    """Write docs/benchmarks.md and the figures of README.md."""
    made = documents(load(), README.read_text())
    old = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if check and old:
        names = ", ".join(str(path.relative_to(ROOT)) for path in old)
        raise SystemExit(f"{names} must be made from the committed figures; run python -m tests.benchmarks.document")
    for path in old:
        write_atomically(path, made[path])
        typer.echo(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    typer.run(main)
