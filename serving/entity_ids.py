"""Entity keys as callers write them: numbers, or the texts of one's own data.

Inside, every key is an int64. Where a dataset's ids are texts, ingestion hashes them, and a release holds the texts of
its Pins; what a caller writes is hashed in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.release.manifest import ReleaseManifest
from feature_repo.release.text_ids import key_of_text
from serving.errors import ErrorDetail, RequestError

Keys = npt.NDArray[np.int64]
Id = int | str


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityIds:
    """Ids of users and Pins of one release; numbers unless it says that they are texts."""

    texts: frozenset[str] = frozenset()
    """Entities whose ids are texts."""
    pin_keys: Keys = field(default_factory=lambda: np.empty(0, np.int64))
    """Keys of Pins whose texts are known, ascending."""
    pin_texts: pa.ChunkedArray | None = None
    """The texts, in the same order."""

    def key(self, entity: str, given: Id, name: str) -> int:
        """Key of one entity.

        Raises:
            RequestError: It is a number where ids are texts, or the other way round.
        """
        if isinstance(given, str) != (entity in self.texts):
            raise _refusal(entity, given, name, text=entity in self.texts)
        return key_of_text(given) if isinstance(given, str) else given

    def keys(self, entity: str, given: Sequence[Id], name: str, part: str = "") -> list[int]:
        """Keys of several entities, in their order.

        Args:
            name: Field that holds them.
            part: What follows the place of each in its path, such as `.id`.

        Raises:
            RequestError: As `key`, for the first that is not as it should be.
        """
        if entity not in self.texts and set(map(type, given)) <= {int}:
            return list(given)  # type: ignore[arg-type]
        return [self.key(entity, each, f"{name}.{place}{part}") for place, each in enumerate(given)]

    def shown_pins(self, keys: Keys) -> list[Id]:
        """Pins as callers know them; one whose text is not known, such as one that was pushed, by its number."""
        numbers: list[Id] = keys.tolist()
        if "pin" not in self.texts or self.pin_texts is None or not len(self.pin_keys) or not len(keys):
            return numbers
        places = np.searchsorted(self.pin_keys, keys).clip(max=len(self.pin_keys) - 1)
        known = (self.pin_keys[places] == keys).tolist()
        texts = self.pin_texts.take(pa.array(places)).to_pylist()
        return [text if has else key for text, has, key in zip(texts, known, numbers, strict=True)]


def load_entity_ids(directory: Path, manifest: ReleaseManifest) -> EntityIds:
    """How a release's ids are written."""
    declared = manifest.text_ids
    if declared is None:
        return EntityIds()
    texts = frozenset(entity for entity, given in (("user", declared.user), ("pin", declared.pins)) if given)
    if declared.pins is None:
        return EntityIds(texts=texts)
    table = pq.read_table(directory / declared.pins)
    table = table.take(pc.sort_indices(table["pin_id"]))
    return EntityIds(texts=texts, pin_keys=table["pin_id"].to_numpy(), pin_texts=table["key"])


def _refusal(entity: str, given: Id, name: str, *, text: bool) -> RequestError:
    kind = "a text" if text else "a number"
    return RequestError(
        ErrorDetail(
            code="invalid_request",
            message=f"{name} must be {kind}, as the {entity} ids of this release are (got {given!r})",
            field=name,
            value=given,
            remedy=f"send {entity} ids as {'texts' if text else 'numbers'}",
        )
    )
