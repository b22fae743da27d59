"""The entities that are embedded at a cut-off, and their inputs in files."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.small_repo import SmallRepo
from tests.data.tiny_log import TIME, at, ingest_tiny, tiny_spec, tiny_tables
from trainers.data import active_entities
from trainers.data.active_entities import ActiveEntities, Chunks, EntityFiles
from trainers.data.upstream_data import UpstreamSpecs, upstream_specs
from trainers.progress import SILENT


@pytest.fixture(scope="module")
def specs(small_repo: SmallRepo) -> UpstreamSpecs:
    """Inputs of the towers."""
    return upstream_specs(small_repo.log, small_repo.manifest, small_repo.offline, small_repo.spec.window.train_from)


def test_active_entities_are_those_of_the_cutoffs_snapshot(small_repo: SmallRepo, specs: UpstreamSpecs) -> None:
    entities = ActiveEntities(small_repo.log, small_repo.store, specs, small_repo.offline, timedelta(days=90))
    cutoff = small_repo.spec.window.features_from + timedelta(days=1)
    shown = small_repo.log.impressions(at(1), cutoff)
    keys, examples = entities("user", cutoff)
    assert keys.tolist() == sorted(set(shown["user_id"].to_pylist()))
    assert len(examples) == len(keys)
    assert examples.labels.shape == (len(keys), 0)
    pins, _ = entities("pin", cutoff)
    assert pins.tolist() == list(range(30))


def test_active_pins_are_in_the_catalogue_only_from_when_their_rows_hold(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["pins"]["event_timestamp"] = pa.array([at(1), at(3), at(4)], TIME)
    _, log = ingest_tiny(tmp_path, tables, tiny_spec())
    empty = tmp_path / "offline" / "pin_activity"
    empty.mkdir(parents=True)
    for day in (3, 4):
        pq.write_table(pa.table({"pin_id": pa.array([], pa.int64())}), empty / f"date=2024-01-0{day}.parquet")
    entities = ActiveEntities(log, None, None, tmp_path / "offline", timedelta(days=90))  # type: ignore[arg-type]
    assert entities._keys("pin", at(3)).tolist() == [10]
    assert entities._keys("pin", at(4)).tolist() == [10, 11]


def test_entity_files_give_back_what_feast_gave(small_repo: SmallRepo, specs: UpstreamSpecs, tmp_path: Path) -> None:
    entities = ActiveEntities(small_repo.log, small_repo.store, specs, small_repo.offline, timedelta(days=90))
    cutoffs = [small_repo.spec.window.features_from + timedelta(days=day) for day in (1, 2)]
    files = EntityFiles(tmp_path)
    files.write(entities, cutoffs, SILENT)
    for entity in ("user", "pin"):
        for cutoff in cutoffs:
            keys, examples = entities(entity, cutoff)
            ((kept_keys, kept),) = files(entity, cutoff)
            assert kept_keys.tolist() == keys.tolist()
            assert kept.inputs.keys() == examples.inputs.keys()
            for name, values in examples.inputs.items():
                np.testing.assert_array_equal(kept.inputs[name], values)
                assert kept.inputs[name].dtype == values.dtype
            assert kept.labels.shape == (len(keys), 0)


def test_entity_files_that_are_there_are_not_made_again(
    small_repo: SmallRepo, specs: UpstreamSpecs, tmp_path: Path
) -> None:
    entities = ActiveEntities(small_repo.log, small_repo.store, specs, small_repo.offline, timedelta(days=90))
    first, second = (small_repo.spec.window.features_from + timedelta(days=day) for day in (1, 2))
    EntityFiles(tmp_path).write(entities, [first], SILENT)
    asked: list[tuple[str, datetime]] = []

    class Counted(ActiveEntities):
        def chunks(self, entity: str, cutoff: datetime) -> Chunks:
            asked.append((entity, cutoff))
            return entities.chunks(entity, cutoff)

    counted = Counted(small_repo.log, small_repo.store, specs, small_repo.offline, timedelta(days=90))
    EntityFiles(tmp_path).write(counted, [first, second], SILENT)
    assert sorted(asked) == [("pin", second), ("user", second)]


def test_entities_come_in_chunks_that_make_up_the_whole(
    small_repo: SmallRepo, specs: UpstreamSpecs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entities = ActiveEntities(small_repo.log, small_repo.store, specs, small_repo.offline, timedelta(days=90))
    cutoff = small_repo.spec.window.train_from
    keys, examples = entities("pin", cutoff)
    monkeypatch.setattr(active_entities, "CHUNK_ENTITIES", 12)
    files = EntityFiles(tmp_path)
    files.write(entities, [cutoff], SILENT)
    chunks = list(files("pin", cutoff))
    assert [len(each) for each, _ in chunks] == [12, 12, 6]
    assert np.concatenate([each for each, _ in chunks]).tolist() == keys.tolist()
    for name, values in examples.inputs.items():
        np.testing.assert_array_equal(np.concatenate([each.inputs[name] for _, each in chunks]), values)


def test_entity_files_that_were_never_written_are_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"user/date=2024-01-03 must hold the inputs"):
        next(EntityFiles(tmp_path)("user", at(3)))
