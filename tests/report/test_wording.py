"""The sentences that people quote must not claim more than the intervals do."""

from __future__ import annotations

import pytest

from trainers.report.schema import Inputs, LiftRow, Optimum, Report, RetrievalRow
from trainers.report.wording import gain_text, gap_text, headline, headline_rows, signed_pct, verdict


def lift_row(
    lift: float | None, interval: tuple[float, float] | None, *, task: str = "ctr", inputs: Inputs = "both"
) -> LiftRow:
    return LiftRow(
        task=task, ranker="dcn_mmoe", inputs=inputs, n_test=10, roc_auc=0.7, pr_auc=0.5, log_loss=0.6,
        roc_auc_lift_pct=lift, roc_auc_lift_ci95=interval,
    )  # fmt: skip


def with_lift(bare: Report, *rows: LiftRow) -> Report:
    return Report(dataset=bare.dataset, seeds=bare.seeds, window=bare.window, lift=rows)


@pytest.mark.parametrize(
    ("lift", "interval", "expected"),
    [
        (1.5, (1.0, 2.0), "rises by 1.50% (95% interval +1.00% to +2.00%)"),
        (-0.5, (-0.8, -0.2), "falls by 0.50% (95% interval -0.80% to -0.20%)"),
        (0.1, (-0.2, 0.4), "shows no significant lift (+0.10%, 95% interval -0.20% to +0.40%)"),
        (2.0, (0.0, 4.0), "shows no significant lift (+2.00%, 95% interval 0.00% to +4.00%)"),
        (1.5, None, "cannot be judged (+1.50% on too few users with positives, or with negatives)"),
        (-0.001, None, "cannot be judged (0.00% on too few users with positives, or with negatives)"),
    ],
)
def test_headline_says_what_the_interval_allows(
    bare: Report, lift: float, interval: tuple[float, float] | None, expected: str
) -> None:
    sentence = headline(with_lift(bare, lift_row(lift, interval)))

    assert sentence == f"With user and Pin embeddings, the CTR ranker's ROC AUC {expected}."


def test_headline_names_every_task(bare: Report) -> None:
    report = with_lift(bare, lift_row(1.0, (0.5, 1.5)), lift_row(0.1, (-0.5, 0.7), task="cvr"))

    assert headline(report).count("ranker's ROC AUC") == 2
    assert "the CVR ranker's ROC AUC shows no significant lift" in headline(report)


def test_headline_comparison_is_not_chosen_by_its_result(bare: Report) -> None:
    both = lift_row(0.1, (-0.2, 0.4))
    larger = lift_row(3.0, (2.0, 4.0), inputs="both_domains")

    assert headline_rows(with_lift(bare, larger, both)) == [both]


def test_headline_is_about_the_first_ranker_of_each_task_by_its_name_where_there_are_others(bare: Report) -> None:
    served = [lift_row(1.0, (0.5, 1.5)), lift_row(0.1, (-0.5, 0.7), task="cvr")]
    beside = [row.model_copy(update={"ranker": "trees"}) for row in served]
    report = with_lift(bare, *served, *beside)

    assert headline_rows(report) == served
    assert headline(report).startswith("With user and Pin embeddings, the CTR ranker's ROC AUC (dcn_mmoe) rises by")


def test_headline_falls_back_to_the_next_inputs_when_both_was_not_run(bare: Report) -> None:
    report = with_lift(bare, lift_row(0.3, (0.1, 0.5), inputs="pin"))

    assert headline(report).startswith("With Pin embeddings, the CTR ranker's ROC AUC rises by 0.30%")


def test_headline_says_so_when_no_lift_was_measured(bare: Report) -> None:
    assert headline(bare) == "This run did not measure lift."


@pytest.mark.parametrize(
    ("lift", "interval", "expected"),
    [
        (1.0, (0.5, 1.5), "higher"),
        (-1.0, (-1.5, -0.5), "lower"),
        (1.0, (-0.5, 2.5), "no significant lift"),
        (1.0, None, "too few users to judge"),
        (None, None, ""),
    ],
)
def test_verdict_follows_the_interval(lift: float | None, interval: tuple[float, float] | None, expected: str) -> None:
    assert verdict(lift_row(lift, interval)) == expected


@pytest.mark.parametrize(
    ("value", "text"), [(1.234, "+1.23%"), (-1.236, "-1.24%"), (0.001, "0.00%"), (-0.001, "0.00%")]
)
def test_signed_percentage_has_no_sign_when_it_rounds_to_zero(value: float, text: str) -> None:
    assert signed_pct(value) == text


def test_gain_of_retrieval_names_its_paired_interval_and_is_empty_for_the_base() -> None:
    base = RetrievalRow(model="base", recall_at_20=0.1, ndcg_at_20=0.05, n_users=10)
    gain = {"recall_gain": 0.0111, "recall_gain_ci95": (-0.0044, 0.0266)}
    assert gain_text(base) == ""
    assert gain_text(base.model_copy(update=gain)) == "+0.0111 (-0.0044 to +0.0266)"


@pytest.mark.parametrize(
    ("best", "expected"),
    [(0.80, "embeddings close 25.0% of the gap"), (None, ""), (0.60, "")],
)
def test_share_of_the_gap_is_that_from_no_embeddings_to_the_true_probabilities(
    bare: Report, best: float | None, expected: str
) -> None:
    rows = [
        LiftRow(task="ctr", ranker="net", inputs=inputs, n_test=10, roc_auc=auc, pr_auc=0.5, log_loss=0.5, ece=0.1)
        for inputs, auc in (("none", 0.60), ("user", 0.70), ("both", 0.65))
    ]
    optimum = () if best is None else (Optimum(task="ctr", roc_auc=best), Optimum(task="cvr", roc_auc=0.9))
    assert gap_text(bare.model_copy(update={"optimum": optimum}), rows) == expected
    assert gap_text(bare, rows[:1]) == ""
