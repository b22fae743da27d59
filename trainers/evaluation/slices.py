"""Lift and calibration on parts of the test rows: by surface, and by how much is known of user and Pin."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trainers.evaluation.arms import RankerJob, Scored
from trainers.evaluation.figures import TestRows, lift_on, mean_of, probabilities_of
from trainers.metrics import ece, ece_by_chance, roc_auc
from trainers.report.schema import SliceRow

MIN_SLICE_ROWS = 500
"""Test rows below which a slice is not shown: its interval would say nothing."""
ACTIVITY_BUCKETS = ((0, 0, "none before"), (1, 4, "1 to 4"), (5, 14, "5 to 14"), (15, None, "15 or more"))
"""Buckets of impressions before: least, most and name."""

Mask = npt.NDArray[np.bool_]


def slice_rows(job: RankerJob, base: Scored, result: Scored, task: str, samples: int) -> list[SliceRow]:
    """Lift by surface, for new and known users and Pins, and by how many impressions they had before."""
    test = TestRows(job)
    probabilities = [probabilities_of(job, each, test) for each in (base, result)]
    rows = []
    for name, value, mask in _parts(test):
        labels = test.labels[mask]
        if len(labels) < MIN_SLICE_ROWS or min(labels.sum(), len(labels) - labels.sum()) < 20:
            continue
        lift = lift_on(test, base, result, mask, samples, job.seeds[0])
        if lift is None:
            continue
        without, given = (each[:, mask] for each in probabilities)
        rows.append(
            SliceRow(
                task=task,
                slice=name,
                value=value,
                n_test=len(labels),
                roc_auc_base=mean_of(roc_auc, labels, base.test_logits[:, mask]),
                roc_auc=mean_of(roc_auc, labels, result.test_logits[:, mask]),
                lift_pct=lift.lift,
                ci95=(lift.low, lift.high),
                inputs=result.arm.inputs,
                ece_base=mean_of(ece, labels, without),
                ece=mean_of(ece, labels, given),
                ece_by_chance=ece_by_chance(given[0]),
            )
        )
    return rows


def _parts(test: TestRows) -> Iterator[tuple[str, str, Mask]]:
    """What the parts are, name of the part, and its rows."""
    for surface in np.unique(test.surfaces):
        yield "surface", str(surface), test.surfaces == surface
    for name, counts in (("user_activity", test.user_impressions), ("pin_activity", test.pin_impressions)):
        yield f"new_or_known_{name.partition('_')[0]}", "new", counts == 0
        yield f"new_or_known_{name.partition('_')[0]}", "known", counts > 0
        for least, most, label in ACTIVITY_BUCKETS:
            yield name, label, (counts >= least) & (counts <= most if most is not None else True)
