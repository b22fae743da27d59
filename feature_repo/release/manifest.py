"""The manifest of a release, `releases/<id>/manifest.json`: what in it must agree, and a digest of every file.

Exporters write it, the catalogue records its digest, servers read it. Nothing is loaded before its sha256 is verified,
and no file of a release is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    InstanceOf,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from feature_repo.contract import MANIFEST_FILE
from feature_repo.encoding import InputSpec

FORMAT: Literal[2] = 2
"""Version of this contract; a manifest of another version is refused."""
ANY_SURFACE = "*"
"""Key of the entry that holds for every surface without its own."""

ReleaseId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SpaceId = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
PinId = Annotated[int, Field(ge=0, le=2**63 - 1)]
Calibration = tuple[FiniteFloat, FiniteFloat]
"""Slope and intercept applied to a logit before the sigmoid."""


class ReleaseError(ValueError):
    """A release that must not answer requests; the text names what is wrong with it, and the remedy."""


def _input_spec(raw: Any) -> Any:
    return InputSpec.from_dict(raw) if isinstance(raw, dict) else raw


Spec = Annotated[InstanceOf[InputSpec], BeforeValidator(_input_spec), PlainSerializer(InputSpec.to_dict)]


class Part(BaseModel):
    """A piece of the manifest: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ReleasedVersion(Part):
    """One embedding version that the release was trained on, and the space that its vectors were in."""

    model: str
    version: int = Field(ge=1)
    dim: int = Field(ge=1)
    ttl_hours: int = Field(ge=0, default=72)
    space_id: SpaceId
    """What the vectors mean: another training has another one, whatever its number."""

    @property
    def key(self) -> str:
        """Short name: `ctr_v1`."""
        return f"{self.model}_v{self.version}"


class Services(Part):
    """Feast feature services that are read online."""

    retrieval: str
    ranking: str


class Encoders(Part):
    """How feature columns become model inputs, as fitted in training."""

    query_user: Spec = Field(alias="query.user")
    candidate_pin: Spec = Field(alias="candidate.pin")
    ranking_user: Spec = Field(alias="ranking.user")
    ranking_pin: Spec = Field(alias="ranking.pin")
    ranking_context: Spec = Field(alias="ranking.context")


class PopularityPrior(Part):
    """What a Pin's popularity adds to its score in the index."""

    days: int = Field(ge=1)
    """Days of engagements before the cut-off that it is counted from."""
    weight: FiniteFloat
    """Weight of its logarithm, before the temperature."""


class RetrievalArtifact(Part):
    """Query tower, candidate tower, and the index built from the latter as of the release's data cut-off."""

    model: FileName
    """ONNX program from `query.user` inputs to a vector."""
    output: str
    """Name of the program's output, float32 [B, dim]."""
    candidate_model: FileName
    """ONNX program from `candidate.pin` inputs to a vector."""
    candidate_output: str
    """Name of its output, float32 [B, dim - 1]; an indexed vector ends with the Pin's popularity."""
    index: FileName
    """faiss inner-product index whose ids are Pin ids."""
    dim: int = Field(ge=2)
    num_pins: int = Field(ge=1)
    temperature: FiniteFloat = Field(gt=0)
    """Of training; the last element of an indexed vector is temperature * weight * log popularity."""
    prior: PopularityPrior


class RankerArtifact(Part):
    """One ranking model: an ONNX program to logits [B] and its calibration."""

    model: FileName
    output: str
    """Name of the task's output, float32 [B]."""
    calibration: dict[str, Calibration] = {}
    """`[a, b]` per surface, `*` for the others; without either the logit is taken as it is."""

    def calibration_on(self, surface: str) -> Calibration:
        """Slope and intercept on a surface."""
        return self.calibration.get(surface, self.calibration.get(ANY_SURFACE, (1.0, 0.0)))


class Rankers(Part):
    """The models that score candidates."""

    pctr: RankerArtifact
    """Probability of a click, given the impression."""
    pcvr: RankerArtifact | None = None
    """Probability of a conversion, given the click."""


class TextIds(Part):
    """Which ids are texts outside; inside, their keys are `feature_repo.release.text_ids.key_of_text` of them."""

    user: bool = False
    pins: FileName | None = None
    """Parquet file with the columns `pin_id` and `key`, the texts of Pins; none where their ids are numbers."""


class ReleaseManifest(Part):
    """Everything that one release consists of."""

    format: Literal[2]
    release: ReleaseId
    """Identifier that every response carries, and name of the folder."""
    parent: ReleaseId | None = None
    """Release whose models it took over; none for one that was trained as a whole."""
    dataset: str
    commit: str
    seed: int
    created: AwareDatetime
    """When the release was made, on the wall clock."""
    data_cutoff: AwareDatetime
    """Last moment that training could see."""
    embeddings: tuple[ReleasedVersion, ...]
    """Embedding versions that the services may read; none for a release without embeddings."""
    surfaces: tuple[str, ...] = Field(min_length=1)
    """Surfaces known at the training cut-off."""
    pin_title: str | None
    """Feature of `pin_attributes` that names a Pin to people."""
    services: Services
    encoders: Encoders
    retrieval: RetrievalArtifact
    rankers: Rankers
    popular: dict[str, tuple[PinId, ...]]
    """Candidates for users unknown to every view, best first, per surface; `*` for the others."""
    text_ids: TextIds | None = None
    """Which ids are texts; none where all are numbers."""
    figures: dict[str, FiniteFloat] = {}
    """How its models did on the test days, by name."""
    sha256: dict[FileName, Sha256]
    """Digest of every file of the release but the manifest."""

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if absent := sorted(self.files() - set(self.sha256)):
            raise ValueError(f"sha256 must cover every file (lacks {absent}); export the release again")
        if ANY_SURFACE not in self.popular:
            raise ValueError(f"popular must have the key {ANY_SURFACE!r} (got {sorted(self.popular)})")
        return self

    def spaces(self) -> dict[str, str]:
        """Space id by version key."""
        return {version.key: version.space_id for version in self.embeddings}

    def files(self) -> set[str]:
        """Files that the parts name."""
        rankers = [ranker for ranker in (self.rankers.pctr, self.rankers.pcvr) if ranker]
        found = {ranker.model for ranker in rankers}
        if self.text_ids is not None and self.text_ids.pins is not None:
            found.add(self.text_ids.pins)
        return found | {self.retrieval.model, self.retrieval.candidate_model, self.retrieval.index}

    def popular_on(self, surface: str) -> list[int]:
        """Popular Pins of a surface, then those of all surfaces; each once."""
        return list(dict.fromkeys((*self.popular.get(surface, ()), *self.popular[ANY_SURFACE])))


def load_manifest(directory: Path) -> ReleaseManifest:
    """The manifest of the release in a folder.

    Raises:
        ReleaseError: The file is absent or breaks the contract; the text names every offending key.
    """
    path = directory / MANIFEST_FILE
    try:
        return ReleaseManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ReleaseError(f"{path} must exist; restore the folder, or create the release again") from error
    except (ValidationError, KeyError, TypeError) as error:
        raise ReleaseError(f"{path} breaks the serving contract, export the release again: {_told(error)}") from error


def _told(error: Exception) -> str:
    """Every complaint about a manifest on one line, with the key that it is about."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    complaints = ((".".join(map(str, each["loc"])), each["msg"]) for each in error.errors())
    return "; ".join(f"{key}: {text}" if key else text for key, text in complaints)


def release_id(manifest: Mapping[str, Any]) -> str:
    """Identifier of a release: the same for the same parts, whenever and however often they are put together.

    Args:
        manifest: JSON-ready; its own `release` and `created` do not count.
    """
    content = {key: value for key, value in manifest.items() if key not in ("release", "created")}
    return f"r-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]}"
