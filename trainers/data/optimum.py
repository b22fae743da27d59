"""Scores of the true probabilities of generated data: in expectation no model does better."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np

from trainers.data.connection import literal
from trainers.data.event_log import EventLog
from trainers.metrics import log_loss, roc_auc
from trainers.report.schema import Optimum

_TRUTH = {"ctr": "true_pclick", "cvr": "true_pconversion"}


def optimum_rows(log: EventLog) -> list[Optimum]:
    """The optimum of each judged task on the test impressions; empty where the truth is not known."""
    truth = log.truth_path
    if truth is None:
        return []
    judged = {"ctr": log.spec.ctr_task, "cvr": log.spec.cvr_task}
    return [_optimum(log, truth, name, task) for name, task in judged.items() if task is not None]


def _optimum(log: EventLog, file: Path, name: str, task: str) -> Optimum:
    window = log.spec.window
    longest = max((conversion.attribution_days for conversion in log.spec.conversions), default=0)
    rows = log.labelled(task, window.test_from, window.until, known_by=window.until + timedelta(days=longest))
    truth = log.query(f"SELECT impression_id, {_TRUTH[name]} AS truth FROM {literal(file)}")
    joined = rows.select(["impression_id", "label"]).join(truth, "impression_id", join_type="inner")
    labels, probabilities = np.asarray(joined["label"]), np.asarray(joined["truth"])
    return Optimum(task=name, roc_auc=roc_auc(labels, probabilities), log_loss=log_loss(labels, probabilities))
