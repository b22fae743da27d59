"""Rows of a report: each one figure, or a few that belong together, and how it was measured.

Every default here means "not run".
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Inputs = Literal["none", "user", "pin", "both", "other_domain", "both_domains", "unified"]
"""Embeddings that a ranker reads: of its own domain (`user`, `pin`, `both`), of the other one, of both, or of one
model that was trained on both domains beside those (`unified`)."""
INPUTS_ORDER: tuple[Inputs, ...] = ("none", "user", "pin", "both", "other_domain", "both_domains", "unified")

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Interval = tuple[float, float]
"""95% confidence interval, lower end first."""
Cell = str | int | float | bool | tuple[float, ...]


class Row(BaseModel):
    """A record of the report: unknown keys, NaN and infinity are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True, use_attribute_docstrings=True
    )

    @model_validator(mode="after")
    def _check_intervals(self) -> Self:
        for name in (
            "roc_auc_lift_ci95",
            "ci95",
            "ndcg_ci95",
            "recall_gain_ci95",
            "ndcg_gain_ci95",
            "released_lead_ci95",
        ):
            interval = getattr(self, name, None)
            if interval is not None and interval[0] > interval[1]:
                raise ValueError(f"{name} must have its lower end first (got {list(interval)})")
        return self


class Window(Row):
    """First and last moment of the impressions that downstream models train on and are tested on."""

    train: tuple[AwareDatetime, AwareDatetime]
    test: tuple[AwareDatetime, AwareDatetime]

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.train[0] < self.train[1] <= self.test[0] < self.test[1]:
            raise ValueError(f"test must follow train, each with its start first (got {self.train} and {self.test})")
        return self


class Step(Row):
    """One step of the run."""

    name: str
    seconds: NonNegative
    peak_mb: NonNegative | None = None
    """Highest resident memory during the step, MiB."""
    cached: bool | None = None
    """True when the step was complete already and its time is that of the earlier run."""


class TableCount(Row):
    """Rows of one table of the event log."""

    table: str
    read: Count
    kept: Count
    quarantined: dict[str, Count]
    """Rows set aside, by reason."""


class Surface(Row):
    """Impressions on one surface."""

    surface: str
    impressions: Count
    label_rates: dict[str, Share] = Field(default={})


class Task(Row):
    """What a task of the lift table predicts."""

    task: str
    label: str
    given: str | None = None
    """The task is defined on impressions with this label."""
    n_train: Count | None = None
    n_test: Count | None = None
    positive_rate: Share | None = None
    """Share of positives among the test impressions of the task."""


class Data(Row):
    """The event log that the run was made from."""

    title: str
    license: str | None = None
    citation: str | None = None
    impression: str
    """What an impression is in this dataset, in words; likewise `click` and `conversion`."""
    click: str
    conversion: str | None = None
    num_days: Count
    """UTC dates from the first impression to the last."""
    warnings: tuple[str, ...] = ()
    """What ingestion allowed but found worth a look."""
    num_users: Count | None = None
    num_pins: Count | None = None
    tables: tuple[TableCount, ...] = ()
    label_rates: dict[str, NonNegative] = Field(default={})
    """Per label, the share of ones where it is defined; per conversion kind, conversions per impression."""
    surfaces: tuple[Surface, ...] = ()
    tasks: tuple[Task, ...] = ()


class LiftRow(Row):
    """A downstream ranker on the test days, and what embeddings changed."""

    task: str
    """`ctr`, `cvr` or another task."""
    ranker: str
    inputs: Inputs
    n_test: Count
    roc_auc: Share
    pr_auc: Share
    log_loss: NonNegative
    gauc: Share | None = None
    """ROC AUC within each user and UTC day, averaged with the user's impressions as weights."""
    ece: Share | None = None
    """Expected calibration error: mean distance of predicted from observed rate over the bins."""
    normalised_entropy: NonNegative | None = None
    """Log loss over that of always answering the rate of positives; below 1 is better than knowing nothing."""
    roc_auc_lift_pct: float | None = None
    """Relative change of ROC AUC against the same ranker without embeddings, percent."""
    roc_auc_lift_ci95: Interval | None = None
    """Over users; the seeds are those that were trained."""
    roc_auc_lift_seeds_ci95: Interval | None = None
    """Over users and seeds; absent with one seed."""
    pr_auc_lift_pct: float | None = None
    pr_auc_lift_ci95: Interval | None = None
    gauc_lift_pct: float | None = None
    gauc_lift_ci95: Interval | None = None
    roc_auc_by_seed: tuple[Share, ...] = ()
    """ROC AUC of each seed, in the order of `seeds`."""
    setting: str = ""
    """What was chosen on the validation days, in words; absent where the recipe's own did best or nothing was tried."""

    @property
    def significant(self) -> bool | None:
        """Whether the interval of the lift excludes 0; none where too few users allow no interval."""
        if self.roc_auc_lift_ci95 is None:
            return None
        lo, hi = self.roc_auc_lift_ci95
        return lo > 0 or hi < 0


class RetrievalRow(Row):
    """A retrieval model on the test days."""

    model: str
    # Not `alias`: type checkers would then want the alias as the argument's name.
    recall_at_20: Share = Field(validation_alias="recall@20", serialization_alias="recall@20")
    ndcg_at_20: Share = Field(validation_alias="ndcg@20", serialization_alias="ndcg@20")
    ci95: Interval | None = None
    """Interval of `recall@20`."""
    ndcg_ci95: Interval | None = None
    """Interval of `ndcg@20`."""
    n_users: Count
    recall_gain: float | None = None
    """`recall@20` minus that of the two-tower without embeddings, on the same users."""
    recall_gain_ci95: Interval | None = None
    """Its paired interval: both models judged on the same resampled users."""
    ndcg_gain: float | None = None
    """The same of `ndcg@20`."""
    ndcg_gain_ci95: Interval | None = None
    released_lead: float | None = None
    """`recall@20` of the two-tower that a release serves, minus this one's, on the same users."""
    released_lead_ci95: Interval | None = None
    """Its paired interval."""
    recall_by_seed: tuple[Share, ...] = ()
    """`recall@20` of each seed, in the order of `seeds`; absent where one model was judged."""
    recall_curve: tuple[tuple[int, Share], ...] = ()
    """Number of candidates and the recall among them, mean over users and seeds."""


class EmbeddingCoverage(Row):
    """What test rows got when they asked an embedding view for a vector."""

    view: str
    entity: Literal["user", "pin"]
    model: str
    version: int = Field(ge=1)
    dim: int = Field(ge=1)
    ttl_hours: int = Field(ge=0)
    n_rows: Count
    present: Share
    missing: Share
    outside_max_age: Share
    median_age_hours: NonNegative | None = None
    """Median age of the vectors that were present."""
    num_vectors: Count | None = None
    """Entities in the newest snapshot."""

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        total = self.present + self.missing + self.outside_max_age
        if self.n_rows and abs(total - 1.0) > 1e-6:
            raise ValueError(f"{self.view}: present + missing + outside_max_age must be 1 (got {total})")
        return self


class TrainingDay(Row):
    """Progressive evaluation of an upstream model: scored on a day before it trains on it."""

    model: str
    day: date
    task: str
    roc_auc: Share
    n: Count


class CalibrationBin(Row):
    """Impressions with similar predictions."""

    predicted: Share
    """Mean predicted probability."""
    observed: Share
    """Share of positives."""
    n: Count


class Calibration(Row):
    """Calibration of one ranker on the test days."""

    task: str
    ranker: str
    inputs: Inputs
    bins: tuple[CalibrationBin, ...]


class Curve(Row):
    """ROC and precision-recall curve of one ranker on the test days, first seed."""

    task: str
    ranker: str
    inputs: Inputs
    roc: tuple[tuple[Share, Share], ...]
    """False and true positive rate."""
    precision_recall: tuple[tuple[Share, Share], ...]
    """Recall and precision."""


class DriftDay(Row):
    """How far an embedding view moved from one daily snapshot to the next."""

    view: str
    day: date
    """UTC date of the later snapshot."""
    cosine: float = Field(ge=-1.0, le=1.0)
    """Mean cosine of the vectors of entities that both snapshots have."""
    low_cosine: float = Field(ge=-1.0, le=1.0)
    """Cosine below which the most moved tenth lies."""
    num_vectors: Count
    """Entities in the later snapshot."""
    num_new: Count
    """Those of them that the earlier one lacks."""


class ViewFreshness(Row):
    """How fresh a feature view is, and what test rows got from it."""

    view: str
    entity: Literal["user", "pin"]
    ttl_hours: int = Field(ge=0)
    num_snapshots: Count
    newest: date | None = None
    """Day of the newest snapshot."""
    days_behind: int | None = None
    """Days from the newest snapshot to the last day of the event log."""
    present: Share | None = None
    """Share of the test rows whose entity had a row inside its max age."""
    missing: Share | None = None
    outside_max_age: Share | None = None


class SliceRow(Row):
    """Lift on a part of the test impressions."""

    task: str
    slice: str
    """What the parts are, such as `surface` or `user_activity`."""
    value: str
    n_test: Count
    roc_auc_base: Share
    roc_auc: Share
    lift_pct: float
    ci95: Interval | None = None
    inputs: Inputs | None = None
    """Embeddings that the slice was measured with; `both` where absent."""
    ece_base: Share | None = None
    """Expected calibration error of the ranker without embeddings on the part."""
    ece: Share | None = None
    """The same with them."""
    ece_by_chance: Share | None = None
    """What the latter would be if its probabilities were the true ones: few rows show an error by chance."""


class Optimum(Row):
    """Score of the true probabilities of generated data: no model can do better in expectation."""

    task: str
    roc_auc: Share
    log_loss: NonNegative | None = None


class ServedRoute(Row):
    """Latency of one route of the server, measured over HTTP on loopback."""

    route: str
    size: Count
    """Candidates, or `k`, of one request."""
    n_requests: Count
    p50_ms: NonNegative
    p99_ms: NonNegative


class Example(Row):
    """A request that works on this run."""

    user_id: int | str
    """As the dataset writes it: a number, or a text."""
    surface: str
    pin_ids: tuple[int | str, ...] = ()
