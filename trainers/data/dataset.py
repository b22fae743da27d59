"""What a dataset is: where its event log comes from, which labels are tasks, which attributes feed which tower."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from feature_repo.contract import AttributeField

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Domain = Literal["engagement", "conversion"]
Moment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
"""A moment with a time zone, kept in UTC."""
Model = TypeVar("Model", bound=BaseModel)

RESERVED = frozenset(
    {"impression_id", "user_id", "pin_id", "surface", "event_timestamp", "created_timestamp"}
    | {"position", "propensity", "sampling_rate", "kind", "value", "row", "reason"}
)
"""Columns of the event log that no label, conversion kind, task or attribute may take."""

_DAY = timedelta(days=1)


class SpecError(ValueError):
    """A file that a person wrote says something that cannot be."""


class Strict(BaseModel):
    """A model that a person writes: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Attribute(Strict):
    """One attribute of a user or a Pin."""

    name: Name
    kind: Literal["categorical", "dense", "multi_valued", "vector"]
    type: Literal["int64", "float", "string"] = "string"
    dim: int = Field(default=0, ge=0, le=4096)

    @model_validator(mode="after")
    def _check_type(self) -> Self:
        if self.kind == "vector" and self.dim == 0:
            raise ValueError(f"attribute {self.name}: a vector needs dim (got 0)")
        if self.kind in ("dense", "vector") and self.type == "string":
            raise ValueError(f"attribute {self.name}: kind {self.kind} needs type float or int64 (got string)")
        if self.kind == "categorical" and self.type == "float":
            raise ValueError(f"attribute {self.name}: a categorical needs type string or int64 (got float)")
        return self

    def field(self) -> AttributeField:
        """The same attribute as the feature repo knows it."""
        return AttributeField(name=self.name, kind=self.kind, type=self.type, dim=self.dim)


class Conversion(Strict):
    """A label that arrives later than its impression."""

    kind: Name
    attribution_days: int = Field(ge=1, le=365)
    """Days after the impression in which a conversion counts, and before which none is no negative."""


class Task(Strict):
    """One binary target of the models."""

    name: Name
    label: Name
    """A label column of impressions, or a conversion kind."""
    domain: Domain
    given: Name | None = None
    """The task is defined on impressions whose label of this name is 1."""


class Window(Strict):
    """Moments that split the log in time; all are starts of a data day, `until` exclusive."""

    features_from: Moment
    """First daily snapshot of activity features; upstream training begins here."""
    train_from: Moment
    """First day that downstream models train on; embeddings are published from here on."""
    test_from: Moment
    """First test day; everything downstream learns lies before it."""
    until: Moment
    """End of the last test day."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        moments = (self.features_from, self.train_from, self.test_from, self.until)
        shown = ", ".join(moment.isoformat() for moment in moments)
        if any(later <= earlier for earlier, later in itertools.pairwise(moments)):
            raise ValueError(f"window must increase: features_from < train_from < test_from < until (got {shown})")
        if any((moment - self.features_from) % _DAY for moment in moments):
            raise ValueError(f"window must consist of whole days, all at the same time of day in UTC (got {shown})")
        return self


class DatasetSpec(Strict):
    """Declaration of a dataset; the same for built-in adapters and a user's own files."""

    name: Name
    title: str
    license: str = ""
    citation: str = ""
    impression: str
    """What an impression is here, in words; likewise `click` and `conversion`. They appear in the report."""
    click: str
    conversion: str = ""
    labels: tuple[Name, ...] = Field(min_length=1)
    conversions: tuple[Conversion, ...] = ()
    tasks: tuple[Task, ...] = Field(min_length=1)
    ctr_task: Name
    """Task that the CTR ranker is judged on."""
    cvr_task: Name | None = None
    """Task that the CVR ranker is judged on; none where the data has no conversions."""
    user_attributes: tuple[Attribute, ...] = ()
    pin_attributes: tuple[Attribute, ...] = ()
    histories: tuple[Name, ...] = ()
    """Long user histories (lists of Pins from before the log) that only upstream reads."""
    repeats: bool = False
    """Whether people engage with the same Pin again and again, so that retrieval must not hide those already met."""
    pin_title: Name | None = None
    """Pin attribute that names a Pin to people."""
    window: Window
    publish_delay_minutes: int = Field(default=60, ge=0, le=24 * 60)
    """Time from a data cut-off to the moment its features and embeddings may be used."""
    quarantine_share: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of bad rows in a table above which ingestion fails."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        _check_once("labels and conversion kinds", (*self.labels, *(item.kind for item in self.conversions)))
        _check_once("tasks", (task.name for task in self.tasks))
        _check_once("user attributes", (attribute.name for attribute in self.user_attributes))
        _check_once("pin attributes", (attribute.name for attribute in self.pin_attributes))
        return self

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        known = (*self.labels, *(conversion.kind for conversion in self.conversions))
        for task in self.tasks:
            _check_known(f"label of task {task.name}", task.label, known)
            if task.given:
                _check_known(f"given label of task {task.name}", task.given, self.labels)
        for name in filter(None, (self.ctr_task, self.cvr_task)):
            _check_known("ctr_task and cvr_task", name, tuple(task.name for task in self.tasks))
        _check_domain("ctr_task", self.ctr_task, self.domain_tasks("engagement"))
        _check_known("label of the ctr_task, known with the impression,", self.task(self.ctr_task).label, self.labels)
        if self.cvr_task is not None:
            _check_domain("cvr_task", self.cvr_task, self.domain_tasks("conversion"))
        if self.pin_title:
            _check_known("pin_title", self.pin_title, tuple(attribute.name for attribute in self.pin_attributes))
        return self

    def task(self, name: str) -> Task:
        """The task of that name.

        Raises:
            ValueError: There is none.
        """
        _check_known("task", name, tuple(task.name for task in self.tasks))
        return next(task for task in self.tasks if task.name == name)

    def domain_tasks(self, domain: Domain) -> tuple[Task, ...]:
        """Tasks of one domain, in order."""
        return tuple(task for task in self.tasks if task.domain == domain)

    def conversion_kind(self, kind: str) -> Conversion | None:
        """The conversion of that kind; none when the name is a label known with the impression."""
        return next((conversion for conversion in self.conversions if conversion.kind == kind), None)

    @property
    def publish_delay(self) -> timedelta:
        """Time from a data cut-off to the moment its rows may be used."""
        return timedelta(minutes=self.publish_delay_minutes)

    def cutoffs(self) -> list[datetime]:
        """Daily data cut-offs from `features_from` to `until`, both included."""
        days = (self.window.until - self.window.features_from).days
        return [self.window.features_from + timedelta(days=day) for day in range(days + 1)]


def _check_once(what: str, names: Iterable[str]) -> None:
    seen = list(names)
    repeated = sorted({name for name in seen if seen.count(name) > 1})
    if repeated:
        raise ValueError(f"{what} must be declared once (got {', '.join(repeated)} more than once)")
    taken = sorted(RESERVED.intersection(seen))
    if taken:
        raise ValueError(f"{what} must not be named like a column of the event log (got {', '.join(taken)}); rename it")


def _check_domain(key: str, name: str, tasks: tuple[Task, ...]) -> None:
    names = [task.name for task in tasks]
    if name not in names:
        raise ValueError(f"{key} must be a task of its domain, {', '.join(names) or 'which has none'} (got {name})")


def _check_known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(f"{what} must be one of {', '.join(known) or 'none'} (got {name!r})")


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        keys = [key.value for key, _ in node.value]
        for place, (key, _) in enumerate(node.value):
            if key.value in keys[:place]:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} twice", key.start_mark)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path, model: type[Model]) -> Model:
    """The model that a YAML file holds.

    Raises:
        SpecError: The file is absent, is no YAML mapping, or has a key that the model refuses; the text names it.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except OSError as error:
        raise SpecError(f"{path} must be a readable YAML file (got {error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} must be YAML in UTF-8 (got: {' '.join(str(error).split())}); correct it") from error
    if not isinstance(raw, dict):
        raise SpecError(f"{path} must hold keys and values (got {type(raw).__name__}); see docs/own_data.md")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise SpecError("\n".join(_complaint(path, item) for item in error.errors())) from error


def _complaint(path: Path, error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the whole file"
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{path}: {key} is not a known key (got {error['input']!r}); remove it or correct its spelling"
    if error["type"] == "missing":
        return f"{path}: {key} is required (got nothing); add it"
    if error["type"].startswith("timezone"):
        return f"{path}: {key}: a moment must say its time zone (got {str(error['input'])!r}); append Z for UTC"
    got = "" if error["type"] == "value_error" else f" (got {error['input']!r})"
    return f"{path}: {key}: {text}{got}" + ("" if ";" in text else "; correct it")
