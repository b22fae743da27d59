"""What a study found as a table of text: the same columns on the page and in the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainers.report.wording import interval_pct, signed_pct

Row = Mapping[str, Any]

TITLES = {
    "upgrade": "What a consumer of version v reads from the day on which its successor is published",
    "aggregation": "Which average of an entity's days serves best",
    "staleness": "What vectors of some days ago cost",
    "refresh_cost": "What a day's refresh costs against training anew",
    "consumers": "What vectors are worth to different consumers",
    "ablation": "What each part is worth",
}
_CHANGES = {
    "change_to_v": "against v refreshed [95 %]",
    "change_to_fresh": "against fresh [95 %]",
    "change_to_latest": "against the latest day's [95 %]",
    "change_to_retrain": "against the retrain [95 %]",
    "change_to_vectors": "against the vectors alone [95 %]",
    "change_to_whole": "against the whole [95 %]",
    "lift": "against no embeddings [95 %]",
    "gauc_lift": "gAUC against no embeddings [95 %]",
    "change_to_none": "against no embeddings [95 %]",
}
_NAMES = {
    "roc_auc": "ROC AUC",
    "gauc": "gAUC",
    "recall_at_20": "Recall@20",
    "cosine_to_v": "cosine to v",
    "user_present": "users present",
    "seconds": "s",
    "cpu_seconds": "CPU s",
    "peak_mb": "peak MiB",
    "share_of_seconds_pct": "of the retrain's s",
    "share_of_cpu_seconds_pct": "of its CPU s",
    "share_of_peak_mb_pct": "of its peak",
    "share_of_lift_pct": "of its lift",
}
_LEFT_OUT = ("n_test", "n_users", "num_rankers", "roc_auc_std", "age_days", "pin_present", "recall_ci95")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTable:
    """Cells as they are shown; those of the last columns are numbers."""

    columns: list[str]
    rows: list[list[str]]
    num_numbers: int


def title(name: str) -> str:
    """Heading of a study."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


def text_tables(rows: Sequence[Row]) -> list[TextTable]:
    """Tables of a study: rows that show another figure have a table of their own."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault("recall_at_20" if "recall_at_20" in row else "other", []).append(row)
    return [_table(each) for each in kinds.values()]


def _table(rows: Sequence[Row]) -> TextTable:
    keys = list(dict.fromkeys(key for row in rows for key in row if key not in _LEFT_OUT))
    changes = [name for name in _CHANGES if f"{name}_pct" in keys]
    shown = {f"{name}_{part}" for name in changes for part in ("pct", "ci95")}
    plain = sorted((key for key in keys if key not in shown), key=lambda key: key in _NAMES)
    return TextTable(
        columns=[_NAMES.get(key, key.replace("_", " ")) for key in plain] + [_CHANGES[name] for name in changes],
        rows=[[_cell(key, row.get(key)) for key in plain] + [_change(row, name) for name in changes] for row in rows],
        num_numbers=sum(key in _NAMES for key in plain) + len(changes),
    )


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key.endswith("_pct"):
        return f"{value:.1f}%"
    if key.endswith(("seconds", "_mb")):
        return f"{value:,.0f}"
    if isinstance(value, tuple | list):
        return " to ".join(_cell("", each) for each in value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _change(row: Row, name: str) -> str:
    if row.get(f"{name}_pct") is None:
        return ""
    change, interval = signed_pct(row[f"{name}_pct"]), row.get(f"{name}_ci95")
    return f"{change} [{interval_pct(interval)}]" if interval else change
