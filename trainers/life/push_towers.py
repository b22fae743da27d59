"""Towers of embedding versions as programs, so that vectors can be pushed without torch or the trainer.

A program ends in its version's frame: the day's alignment, the maps back to an older space where a newer version feeds
this one, and unit length are part of it.

Dims: N entities, e width of a vector.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from feature_repo.contract import ENTITIES, MANIFEST_FILE, write_atomically
from feature_repo.encoding import InputSpec, blank
from feature_repo.layout import open_store
from feature_repo.push.errors import TowersError
from feature_repo.push.towers import OUTPUT, TowerProgram, TowersManifest, towers_folder
from feature_repo.release.files import sha256_of
from feature_repo.versions import VersionRecord
from trainers.data.active_entities import ActiveEntities
from trainers.data.examples import Examples
from trainers.data.upstream_data import UpstreamSpecs
from trainers.evaluation.onnx_export import export
from trainers.forked import map_forked
from trainers.life.day_check import alignment_file, maps_back
from trainers.life.home import INPUTS_FILE, Home, upstream_recipe
from trainers.life.walked_days import trainer_of
from trainers.progress import Progress
from trainers.torch_setup import set_up_torch
from trainers.upstream.alignment_map import AlignmentMap, Floats
from trainers.upstream.model import UpstreamModel
from trainers.upstream.walk import CHECKPOINT

NUM_CHECKED = 64
"""Entities of the day whose inputs a tower is traced and checked with."""
KEPT_DAYS = 2
"""Days of towers that are kept: a server may still be computing with those of the day before."""


class FrameTower(nn.Module):
    """A tower whose vectors are brought into a frame and to unit length."""

    def __init__(self, model: UpstreamModel, spec: InputSpec, matrix: Floats) -> None:
        super().__init__()
        self.model, self._is_user = model, spec.side == "user"
        self._names = tuple(blank(spec, 1))
        self.matrix: Tensor
        self.register_buffer("matrix", torch.from_numpy(matrix.astype(np.float32)))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Vectors [N, e] under the one output's name."""
        # Named one by one, so that the export sees what is read: the towers copy their inputs whole.
        own = {name: inputs[name] for name in self._names}
        raw = self.model.embed_users(own) if self._is_user else self.model.embed_pins(own)
        turned = raw @ self.matrix
        return {OUTPUT: turned / turned.norm(dim=1, keepdim=True).clamp(min=1e-12)}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Export:
    """Towers of one version's newest day before they are written."""

    manifest: TowersManifest
    """Without the digests, which come with the files."""
    folder: Path
    """Where they go."""
    towers: Mapping[str, FrameTower]
    examples: Mapping[str, Examples]
    """Entities of the day to trace and to check with."""


def export_towers(home: Home, records: Sequence[VersionRecord], progress: Progress) -> list[Path]:
    """Export the towers of each version's newest visible day, side by side.

    Returns:
        Folders that were written.

    Raises:
        TowersError: A version's weights are not those of its newest visible day, because a refresh is under way.
    """
    set_up_torch(home.context.config.threads)
    exports = [_prepared(home, record) for record in records]
    programs = [(each, entity) for each in exports for entity in ENTITIES]
    for each in exports:
        shutil.rmtree(_aside(each), ignore_errors=True)
        _aside(each).mkdir(parents=True)

    def write(position: int, progress: Progress) -> float:
        del progress
        each, entity = programs[position]
        return export(each.towers[entity], each.examples[entity], _aside(each) / each.manifest.program(entity).file)

    workers = home.context.config.threads
    map_forked(write, range(len(programs)), name="export towers", workers=workers, progress=progress)
    return [_put_in_place(each) for each in exports]


def _prepared(home: Home, record: VersionRecord) -> _Export:
    cutoff = home.newest_day(record.key).cutoff
    source = home.catalogue.version(record.served_through) if record.served_through else record
    specs = UpstreamSpecs.load(home.folder(source.key) / INPUTS_FILE)
    trainer = trainer_of(home, source, specs)
    known = datetime.fromisoformat(trainer.load(home.folder(source.key) / CHECKPOINT)["cutoff"])
    if known != cutoff:
        raise TowersError(
            f"weights of {source.key} must be those of its newest visible day, {cutoff:%Y-%m-%d} (got those of "
            f"{known:%Y-%m-%d}: a refresh is under way); finish it with `headwater refresh`, then export again"
        )
    sides = {spec.side: spec for spec in (specs.user, specs.pin)}
    maps = {entity: _matrix(home, record, source, entity, cutoff) for entity in ENTITIES}
    assert record.space_id is not None
    return _Export(
        manifest=TowersManifest(
            version=record.key,
            space_id=record.space_id,
            dim=record.dim,
            cutoff=cutoff,
            publish_delay_s=home.log.spec.publish_delay.total_seconds(),
            average_weight=upstream_recipe(record).average_weight,
            alignment=_alignment(home, source, cutoff).kind,
            through=record.served_through,
            user=_program(sides["user"]),
            pin=_program(sides["pin"]),
        ),
        folder=towers_folder(home.run, record.key, cutoff),
        towers={entity: FrameTower(trainer.model, sides[entity], maps[entity]).eval() for entity in ENTITIES},
        examples=_examples(home, source, specs, cutoff),
    )


def _program(spec: InputSpec) -> TowerProgram:
    return TowerProgram(file=f"{spec.side}_tower.onnx", sha256="0" * 64, encoder=spec)


def _matrix(home: Home, record: VersionRecord, source: VersionRecord, entity: str, cutoff: datetime) -> Floats:
    """From the raw vectors of the towers to the version's frame."""
    found = _alignment(home, source, cutoff)
    matrix = found.user if entity == "user" else found.pin
    if source.key == record.key:
        return matrix
    for each in maps_back(home, source, record.key):
        matrix = matrix @ each.matrix.detach().numpy().astype(np.float64)
    return matrix


def _alignment(home: Home, source: VersionRecord, cutoff: datetime) -> AlignmentMap:
    file = alignment_file(home.folder(source.key), cutoff)
    return AlignmentMap.load(file) if file.is_file() else AlignmentMap.identity(source.dim)


def _examples(home: Home, source: VersionRecord, specs: UpstreamSpecs, cutoff: datetime) -> dict[str, Examples]:
    """Some entities of the day."""
    retention = timedelta(days=upstream_recipe(source).retention_days)
    active = ActiveEntities(home.log, open_store(home.repo_dir), specs, home.offline, retention)
    return {entity: _some(next(active.chunks(entity, cutoff))[1]) for entity in ENTITIES}


def _some(examples: Examples) -> Examples:
    return examples.take(np.arange(min(len(examples), NUM_CHECKED)))


def _aside(each: _Export) -> Path:
    return each.folder.with_name(f".{each.folder.name}.partial")


def _put_in_place(each: _Export) -> Path:
    """Rename the folder, whole, into place; towers older than the day before go."""
    digests = {
        entity: each.manifest.program(entity).model_copy(
            update={"sha256": sha256_of(_aside(each) / each.manifest.program(entity).file)}
        )
        for entity in ENTITIES
    }
    manifest = each.manifest.model_copy(update=digests)
    write_atomically(_aside(each) / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")
    shutil.rmtree(each.folder, ignore_errors=True)
    _aside(each).rename(each.folder)
    for old in sorted(each.folder.parent.glob("date=*"))[:-KEPT_DAYS]:
        shutil.rmtree(old)
    return each.folder
