"""What the upstream walk reads: rows with the moments at which labels are known, and entities active at a cut-off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.small_repo import SmallRepo
from tests.data.tiny_log import TIME, at, ingest_tiny, tiny_tables
from trainers.data.upstream_data import (
    IdTables,
    UpstreamRows,
    UpstreamSpecs,
    attribute_frame,
    buckets,
    encode_rows,
    known_surfaces,
    read_rows,
    upstream_specs,
)
from trainers.progress import SilentProgress


@pytest.fixture(scope="module")
def specs(small_repo: SmallRepo) -> UpstreamSpecs:
    """Inputs of the towers."""
    return upstream_specs(small_repo.log, small_repo.manifest, small_repo.offline, small_repo.spec.window.train_from)


@pytest.fixture(scope="module")
def rows(small_repo: SmallRepo, specs: UpstreamSpecs, tmp_path_factory: pytest.TempPathFactory) -> UpstreamRows:
    """Every impression of the walk."""
    until, folder = small_repo.spec.window.until, tmp_path_factory.mktemp("rows")
    return read_rows(small_repo.log, small_repo.store, specs, SilentProgress(), until=until, folder=folder)


@pytest.mark.parametrize(
    ("num_keys", "load", "expected"),
    [(0, 0.25, 256), (64, 0.25, 256), (65, 0.25, 512), (1000, 0.5, 2048), (10**9, 0.25, 1 << 20)],
)
def test_buckets_are_powers_of_two_between_bounds(num_keys: int, load: float, expected: int) -> None:
    assert buckets(num_keys, load=load) == expected


def test_keys_are_hashed_as_often_and_as_widely_as_asked_for(small_repo: SmallRepo, specs: UpstreamSpecs) -> None:
    tables = IdTables(hashes=3, max_buckets=256)
    found = upstream_specs(
        small_repo.log, small_repo.manifest, small_repo.offline, small_repo.spec.window.train_from, tables
    )
    for one, several in ((specs.user, found.user), (specs.pin, found.pin)):
        key = f"{one.side}_id"
        assert [item.hash for item in one.ids if item.column == key] == [0]
        assert [item.hash for item in several.ids if item.column == key] == [0, 1, 2]
        assert {item.buckets for item in several.ids} == {256}
        # Sequences keep their places, and the first hash.
        assert [item.column for item in several.ids[: len(one.ids)]] == [item.column for item in one.ids]
        assert {item.hash for item in several.ids if item.length} <= {0}


def test_attribute_frame_leaves_out_what_holds_only_later(tmp_path: Path) -> None:
    folder = tmp_path / "pin_attributes"
    folder.mkdir()
    columns = {"pin_id": [1, 2, 3], "event_timestamp": pa.array([at(1), at(2), at(3)], TIME), "brand": ["a", "b", "c"]}
    pq.write_table(pa.table(columns), folder / "all.parquet")
    assert attribute_frame(tmp_path, "pin")["pin_attributes__brand"].to_pylist() == ["a", "b", "c"]
    assert attribute_frame(tmp_path, "pin", at(2))["pin_attributes__brand"].to_pylist() == ["a"]
    assert attribute_frame(tmp_path, "user").num_rows == 0


def test_specs_do_not_know_values_that_appear_only_after_the_cutoff(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["impressions"]["surface"] = ["home", "home", "home", "home", "search", "later"]
    _, log = ingest_tiny(tmp_path, tables)
    assert known_surfaces(log, at(5)) == ["home"]
    assert known_surfaces(log, at(6)) == ["home", "later", "search"]


def test_specs_size_sequences_and_pins_by_one_table(specs: UpstreamSpecs) -> None:
    assert [(item.column, item.buckets) for item in specs.user.ids] == [
        ("user_id", 256),
        ("user_activity__recent_pins", 256),
    ]
    assert [(item.column, item.buckets) for item in specs.pin.ids] == [("pin_id", 256)]
    assert specs.context.categorical[0].vocabulary == ("home", "related", "search")
    assert specs.sides() == (specs.user, specs.pin, specs.context)


def test_rows_know_a_click_at_once_and_a_purchase_when_its_window_has_closed(
    small_repo: SmallRepo, rows: UpstreamRows
) -> None:
    spec = small_repo.spec
    log = small_repo.log.impressions(spec.window.features_from, spec.window.until)
    shown = np.asarray(log["event_timestamp"].cast(pa.int64()))
    click, purchase = rows.examples.labels.T
    closes = shown + spec.conversions[0].attribution_days * 86_400_000_000
    assert rows.index.known_at.tolist() == np.stack([shown, closes], axis=1).tolist()
    assert click.tolist() == log["click"].to_pylist()
    assert (~np.isnan(purchase) == (click == 1.0)).all()
    assert (rows.index.shown_at == shown).all()
    assert set(np.unique(purchase[~np.isnan(purchase)])) == {0.0, 1.0}


def test_rows_lie_in_files_and_are_those_that_memory_would_hold(
    small_repo: SmallRepo, specs: UpstreamSpecs, rows: UpstreamRows
) -> None:
    every = np.arange(len(rows.user_ids))
    (held,) = encode_rows(small_repo.store, [specs], rows.index, every, SilentProgress())
    assert rows.examples.inputs.keys() == held.inputs.keys()
    for name, values in rows.examples.inputs.items():
        assert not values.flags.owndata
        np.testing.assert_array_equal(values, held.inputs[name])


def test_rows_without_impressions_say_what_to_do(small_repo: SmallRepo, specs: UpstreamSpecs, tmp_path: Path) -> None:
    first = small_repo.spec.window.features_from
    with pytest.raises(ValueError, match="no impressions; move the dataset's window"):
        read_rows(small_repo.log, small_repo.store, specs, SilentProgress(), until=first, folder=tmp_path)
