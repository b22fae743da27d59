"""The contract between the exporter and the server: `release/manifest.json` and the files that it names.

Nothing is loaded before its sha256 is verified, and no file of a release is ever unpickled.
"""

from __future__ import annotations

import hashlib
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

from feature_repo.contract import MANIFEST_FILE, EmbeddingVersion
from feature_repo.encoding import InputSpec

FORMAT: Literal[1] = 1
"""Version of this contract; a manifest of another version is refused."""
ANY_SURFACE = "*"
"""Key of the entry that holds for every surface without its own."""

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PinId = Annotated[int, Field(ge=0, le=2**63 - 1)]
Calibration = tuple[FiniteFloat, FiniteFloat]
"""Slope and intercept applied to a logit before the sigmoid."""


class ReleaseError(Exception):
    """A release that must not answer requests; the text names the file and the remedy."""


def _input_spec(raw: Any) -> Any:
    return InputSpec.from_dict(raw) if isinstance(raw, dict) else raw


Spec = Annotated[InstanceOf[InputSpec], BeforeValidator(_input_spec), PlainSerializer(InputSpec.to_dict)]


class Part(BaseModel):
    """A piece of the manifest: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Services(Part):
    """Feast feature services that are read online."""

    retrieval: str
    ranking: str


class Encoders(Part):
    """How feature columns become model inputs, as fitted in training."""

    query_user: Spec = Field(alias="query.user")
    ranking_user: Spec = Field(alias="ranking.user")
    ranking_pin: Spec = Field(alias="ranking.pin")
    ranking_context: Spec = Field(alias="ranking.context")


class RetrievalArtifact(Part):
    """The query tower and the index that was built from the release's candidate tower."""

    model: FileName
    """ONNX program from `query.user` inputs to a vector."""
    output: str
    """Name of the program's output, float32 [B, dim]."""
    index: FileName
    """faiss inner-product index whose ids are Pin ids."""
    dim: int = Field(ge=1)
    num_pins: int = Field(ge=1)


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


class ReleaseManifest(Part):
    """Everything that one release consists of; `release/manifest.json`."""

    format: Literal[1]
    release: str = Field(min_length=1)
    """Identifier that every response carries."""
    dataset: str
    commit: str
    seed: int
    created: AwareDatetime
    """When the release was made, on the wall clock."""
    data_cutoff: AwareDatetime
    """Last moment that training could see."""
    embeddings: tuple[EmbeddingVersion, ...]
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
    sha256: dict[FileName, Sha256]
    """Digest of every file of the release but the manifest."""

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        rankers = [ranker for ranker in (self.rankers.pctr, self.rankers.pcvr) if ranker]
        named = {self.retrieval.model, self.retrieval.index, *(ranker.model for ranker in rankers)}
        if absent := sorted(named - set(self.sha256)):
            raise ValueError(f"sha256 must cover every file (lacks {absent}); export the release again")
        if ANY_SURFACE not in self.popular:
            raise ValueError(f"popular must have the key {ANY_SURFACE!r} (got {sorted(self.popular)})")
        return self

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
        raise ReleaseError(
            f"{path} must exist; finish the run first: headwater run --out {directory.parent}"
        ) from error
    except (ValidationError, KeyError, TypeError) as error:
        raise ReleaseError(f"{path} breaks the serving contract, export the release again: {error}") from error


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_files(directory: Path, manifest: ReleaseManifest) -> None:
    """Pass when every file of the release is there and unchanged.

    Raises:
        ReleaseError: The first file that is absent or whose sha256 differs.
    """
    for name, expected in sorted(manifest.sha256.items()):
        path = directory / name
        if not path.is_file():
            raise ReleaseError(f"{path} must exist (named in {MANIFEST_FILE}); export the release again")
        if (got := sha256_of(path)) != expected:
            raise ReleaseError(
                f"{path} must have sha256 {expected} (got {got}); restore it or export the release again"
            )
