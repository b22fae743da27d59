"""What must hold of a run at every moment, whatever was done or killed before, and what once more when all is quiet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.versions import ReleaseRecord, VersionRecord
from tests.feature_repo.catalogue.invariants import violations
from tests.life.system.plain import ENTITIES, IN_USE, PlainRun, Vectors, sha256, vectors_of
from tests.life.system.shop import DELAY, NUM_PINS, PUSHED
from tests.life.system.stand_in import latent_vectors
from trainers.data.upstream_data import UpstreamSpecs
from trainers.life.home import INPUTS_FILE

READY = ("candidate", "live", "superseded")
MOVES = {
    "version": {
        (None, "training"),
        ("training", "backfilling"),
        ("backfilling", "candidate"),
        *((state, "live") for state in ("candidate", "superseded")),
        ("live", "superseded"),
        *((state, "retired") for state in ("training", "backfilling", "candidate", "superseded")),
        ("retired", "pruned"),
    },
    "release": {
        (None, "candidate"),
        *((state, "live") for state in ("candidate", "superseded")),
        ("live", "superseded"),
        *((state, "retired") for state in ("candidate", "superseded")),
        ("retired", "pruned"),
    },
    "day": {
        (None, "generated"),
        ("generated", "checked"),
        ("generated", "failed"),
        ("checked", "generated"),
        ("checked", "visible"),
        ("failed", "generated"),
    },
}
"""Documented changes of state."""
SAME_SPACE = 0.9
"""Least cosine of a vector to where its entity stands in the space; strangers of another space have 0 ± 0.35."""


class Truth:
    """Where every entity stands in any space: the latent vectors, as the first version shows them."""

    def __init__(self, run: Path) -> None:
        plain, inputs = PlainRun(run), UpstreamSpecs.load(run / "upstream" / "ctr_v1" / INPUTS_FILE)
        self._latent = {}
        for entity, spec in (("user", inputs.user), ("pin", inputs.pin)):
            shown = plain.reference(entity, "ctr_v1")
            dim = len(next(iter(shown.values())))
            latent = latent_vectors(spec, [*shown, *PUSHED[entity]], dim)
            turn = _turn(latent, shown)
            self._latent[entity] = {key: vector @ turn for key, vector in latent.items()}

    def expected(self, entity: str, reference: Vectors) -> dict[int, npt.NDArray[np.float64]]:
        """Vector of each entity in the space of a reference frame."""
        latent = self._latent[entity]
        turn = _turn(latent, reference)
        return {key: latent[key] @ turn for key in latent}


def _turn(ours: Mapping[int, Any], theirs: Vectors) -> npt.NDArray[np.float64]:
    """From one space to another, by the entities that stand in both."""
    common = [key for key in theirs if key in ours]
    one, other = (np.stack([frame[key] for key in common]).astype(np.float64) for frame in (ours, theirs))
    return np.asarray(np.linalg.lstsq(one, other, rcond=None)[0])


def broken(run: Path, truth: Truth) -> list[str]:
    """Every promise that a run does not keep now; empty when it keeps all."""
    plain = PlainRun(run)
    return [
        *violations(plain.seen),
        *_history(plain),
        *_releases(plain),
        *_versions(plain, truth),
        *_services(plain),
        *_pruned(plain),
    ]


def unfinished(run: Path) -> list[str]:
    """What a repeated operation should have brought to its end; empty when nothing is under way or left over."""
    plain = PlainRun(run)
    seen, found = plain.seen, []
    found += [f"{key} is {each.state}" for key, each in seen.versions.items() if each.state in ("training",)]
    found += damaged_artifacts(plain)
    known = {release.folder for release in seen.releases.values() if release.state != "pruned"}
    there = {f"releases/{path.name}" for path in (run / "releases").iterdir() if not path.name.startswith(".")}
    found += [f"{folder} belongs to no release that is kept" for folder in sorted(there - known)]
    declared = {
        f"{entity}_embedding_{key}"
        for key, each in seen.versions.items()
        for entity in ENTITIES
        if each.state != "pruned"
    }
    for place, names in (("registry", plain.views), ("online store", plain.online_tables)):
        extra = {name for name in names if "_embedding_" in name} - declared
        found += [f"{name} is in the {place} still" for name in sorted(extra)]
    return found


def damaged_artifacts(plain: PlainRun) -> Iterator[str]:
    """Files of versions in use that are not there, or not as the catalogue says."""
    for key, version in plain.seen.versions.items():
        for name, digest in version.artifacts.items() if version.state in READY else ():
            file = plain.folder / name
            if not file.is_file() or sha256(file) != digest:
                yield f"{key} ({version.state}) must have {name} as the catalogue says"


def _history(plain: PlainRun) -> Iterator[str]:
    for each in plain.seen.transitions:
        kind = each.subject.partition(" ")[0]
        if not each.who.strip() or not each.why.strip() or not isinstance(each.at, datetime):
            yield f"transition {each.id} must say who, when and why (got {each})"
        if kind in MOVES and each.before != each.after and (each.before, each.after) not in MOVES[kind]:
            yield f"transition {each.id} of {each.subject} goes from {each.before} to {each.after}"
    if plain.seen.pointers.live is None:
        yield "no release is live"


def _releases(plain: PlainRun) -> Iterator[str]:
    """Every part that a release in use names is there and unchanged."""
    for release in plain.seen.releases.values():
        if release.state in IN_USE:
            yield from _parts(plain, release)


def _parts(plain: PlainRun, release: ReleaseRecord) -> Iterator[str]:
    folder = plain.folder / release.folder
    file = folder / "manifest.json"
    if not file.is_file() or sha256(file) != release.manifest_sha256:
        yield f"{release.id} ({release.state}) must have its manifest"
        return
    manifest = plain.manifest(release)
    for name, digest in manifest["sha256"].items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            yield f"{release.id} ({release.state}) must have {name} as it was made"
    spaces = {f"{each['model']}_v{each['version']}": each["space_id"] for each in manifest["embeddings"]}
    if spaces != dict(release.versions):
        yield f"{release.id} has spaces {release.versions} in the catalogue and {spaces} in its manifest"
    for service in manifest["services"].values():
        if service not in plain.services:
            yield f"{release.id} ({release.state}) must have its service {service}"


def _versions(plain: PlainRun, truth: Truth) -> Iterator[str]:
    """All vectors of a version, wherever they lie, are in the version's space."""
    for version in plain.seen.versions.values():
        if version.state not in READY:
            continue
        if plain.space_id(version.key) != version.space_id:
            yield f"{version.key} must have the reference frame of space {version.space_id}"
            continue
        for entity in ENTITIES:
            expected = truth.expected(entity, plain.reference(entity, version.key))
            yield from _offline(plain, version, entity, expected)
            yield from _online(plain, version, entity, expected)
            for release in plain.seen.releases.values():
                if entity == "pin" and release.state in IN_USE and version.key in release.versions:
                    yield from _index(plain, version, release, expected)


def _index(
    plain: PlainRun, version: VersionRecord, release: ReleaseRecord, expected: Mapping[int, Any]
) -> Iterator[str]:
    """Vectors of the space, and zero for just those Pins whose every vector was outside max age at the cut-off."""
    assert release.data_cutoff is not None
    until = release.data_cutoff + DELAY
    since = until - timedelta(hours=version.ttl_hours)
    usable = {key for key, moment in plain.offline_rows("pin", version.key) if since <= moment <= until}
    index = plain.index(release)
    held = {key for key, each in index.items() if np.abs(each).max() > 0.0}
    # Two-towers that were trained on a version put what they learned themselves behind its vector.
    yield from _strangers(f"index of {release.id}", {key: index[key][: version.dim] for key in held}, expected)
    if wrong := held ^ (usable & index.keys()):
        yield f"index of {release.id} and usable vectors of {version.key} must be of the same Pins ({sorted(wrong)})"
    if absent := set(range(1, NUM_PINS + 1)) - index.keys():
        yield f"index of {release.id} must hold every Pin (lacks {sorted(absent)})"


def _offline(plain: PlainRun, version: VersionRecord, entity: str, expected: Mapping[int, Any]) -> Iterator[str]:
    there = {file.name: file for file in plain.offline(entity, version.key)}
    for file in plain.offline_files(entity, version.key):
        yield from _strangers(f"{file.parent.name}/{file.name}", vectors_of(file, entity), expected)
    for day in plain.days:
        if day["key"] == version.key and day["state"] == "visible":
            name = f"date={day['cutoff']:%Y-%m-%d}.parquet"
            if name not in there or sha256(there[name]) != day["snapshot_sha256"][entity]:
                yield f"{version.key} must have the {entity} snapshot of {day['cutoff']:%Y-%m-%d} as it became visible"


def _online(plain: PlainRun, version: VersionRecord, entity: str, expected: Mapping[int, Any]) -> Iterator[str]:
    rows = plain.online(entity, version.key)
    yield from _strangers(
        f"online rows of {entity} {version.key}", {key: each.vector for key, each in rows.items()}, expected
    )
    known = plain.offline_rows(entity, version.key)
    for key, row in rows.items():
        if not any(np.array_equal(row.vector, each) for each in known.get((key, row.usable_from), ())):
            yield f"{entity} {key} of {version.key} is online from {row.usable_from}, and not so offline"
    newest = max((d["cutoff"] for d in plain.days if (d["key"], d["state"]) == (version.key, "visible")), default=None)
    if newest is None:
        yield f"{version.key} is {version.state} without a visible day"
        return
    file = plain.data / "offline" / f"{entity}_embedding_{version.key}" / f"date={newest:%Y-%m-%d}.parquet"
    old = [key for key in vectors_of(file, entity) if key not in rows or rows[key].usable_from < newest]
    if old:
        yield f"{version.key} of {newest:%Y-%m-%d} is visible, and {entity}s {old[:3]} are not online"


def _strangers(where: str, vectors: Vectors, expected: Mapping[int, Any]) -> Iterator[str]:
    """Vectors that stand elsewhere than their entity does in the space."""
    if not vectors:
        return
    keys = list(vectors)
    ours, theirs = np.stack([vectors[key] for key in keys]), np.stack([expected[key] for key in keys])
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = np.einsum("nd,nd->n", ours, theirs) / np.maximum(norms, 1e-9)
    if not (cosines >= SAME_SPACE).all():
        worst = int(np.argmin(cosines))
        yield f"{where}: entity {keys[worst]} stands in another space (cosine {cosines[worst]:.2f})"


def _services(plain: PlainRun) -> Iterator[str]:
    """Every registered service reads registered views, and of a model one version."""
    for name, views in plain.services.items():
        if absent := sorted(set(views) - plain.views):
            yield f"service {name} reads {absent}, which are not registered"
        keys = {view.partition("_embedding_")[2] for view in views}
        if len({key.partition("_v")[0] for key in keys}) != len(keys):
            yield f"service {name} reads two spaces of one model: {sorted(keys)}"


def _pruned(plain: PlainRun) -> Iterator[str]:
    """Nothing is left of what is pruned."""
    for version in plain.seen.versions.values():
        if version.state != "pruned":
            continue
        for entity in ENTITIES:
            view = f"{entity}_embedding_{version.key}"
            places = {
                "offline store": (plain.data / "offline" / view).exists(),
                "registry": view in plain.views,
                "online store": view in plain.online_tables,
            }
            yield from (f"{view} is pruned and still in the {place}" for place, there in places.items() if there)
        if (plain.folder / "upstream" / version.key).exists():
            yield f"upstream/{version.key} is pruned and still there"
    for release in plain.seen.releases.values():
        if release.state == "pruned" and (plain.folder / release.folder).exists():
            yield f"{release.folder} is pruned and still there"
