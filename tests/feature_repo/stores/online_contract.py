"""What every online store of ours promises; a store's test file inherits `OnlineStoreContract` and adds a fixture.

The fixture `online` gives an `OnlineUnderTest`. A store that lacks a type narrows `types`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import multiprocessing
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from feast import FeatureStore, Field, OnDemandFeatureView
from feast.types import Float64

from feature_repo.contract import MISSING, OUTSIDE_MAX_AGE, PRESENT
from feature_repo.stores.online.errors import PackedWriteError
from feature_repo.stores.packed.reader import PackedReader
from feature_repo.stores.packed.store import PackedOnlineStore
from tests.feature_repo.stores.online_repos import (
    DIMS,
    MOMENT,
    NOON,
    TTL,
    TYPES,
    embedding_rows,
    feature_store,
    new_ids,
    objects,
    write,
)

V1, V2 = DIMS
HOUR = dt.timedelta(hours=1)
MICROSECOND = dt.timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineUnderTest:
    """A repo of `online_repos.objects`, applied, on the store under test."""

    folder: Path
    settings: dict[str, Any]
    """`online_store` of the repo's configuration."""
    store: FeatureStore
    reader: PackedReader

    @classmethod
    def applied(cls, folder: Path, settings: dict[str, Any], types: Sequence[str] = tuple(TYPES)) -> OnlineUnderTest:
        """A new repo in `folder`."""
        store = feature_store(folder, settings)
        store.apply(objects(types))
        return cls(folder=folder, settings=settings, store=store, reader=PackedReader(store))

    def other_client(self) -> FeatureStore:
        """Another client of the same store, with connections of its own."""
        return feature_store(self.folder, self.settings)

    def clicks(self, view: str, ids: Any, now: dt.datetime = NOON) -> list[int | None]:
        """The field `clicks` of the keys."""
        found: list[int | None] = self.reader.read([view], ids, now=now)[view].column("clicks").to_pylist()
        return found


def _write_in_another_process(folder: Path, settings: dict[str, Any], ids: list[int], hours: list[int]) -> None:
    store = feature_store(folder, settings)
    for hour in hours:
        write(store, V1, embedding_rows(V1, ids, value=hour, at=NOON + hour * HOUR))


class OnlineStoreContract:
    """Inherit, and define the fixture `online`."""

    types: ClassVar[tuple[str, ...]] = tuple(TYPES)
    """Types that the store keeps."""

    def test_store_takes_tables(self, online: OnlineUnderTest) -> None:
        assert isinstance(online.store._get_provider().online_store, PackedOnlineStore)

    def test_every_type_comes_back(self, online: OnlineUnderTest) -> None:
        ids = new_ids(3)
        columns = {name: TYPES[name].column for name in self.types}
        table = pa.table({"pin_id": ids, **columns, "event_timestamp": pa.array([NOON] * 3, MOMENT)})
        assert write(online.store, "every_type", table) == 3
        features = [f"every_type:{name}" for name in self.types]
        answer = online.store.get_online_features(features, {"pin_id": ids.tolist()}).to_dict()
        assert {name: answer[name] for name in self.types} == {name: TYPES[name].read for name in self.types}

    def test_reader_has_every_type_in_arrow(self, online: OnlineUnderTest) -> None:
        ids = new_ids(3)
        expected = {name: TYPES[name].column.to_pylist() for name in self.types}
        if "decimal" in expected:
            expected["decimal"] = ["1.50", None, "-2.00"]
        columns = {name: TYPES[name].column for name in self.types}
        table = pa.table({"pin_id": ids, **columns, "event_timestamp": pa.array([NOON] * 3, MOMENT)})
        write(online.store, "every_type", table)
        rows = online.reader.read(["every_type"], ids, now=NOON)["every_type"]
        found = {name: rows.column(name).to_pylist() for name in self.types}
        assert {name: values for name, values in found.items() if values != expected[name]} == {}

    def test_read_matrix_has_vectors_times_and_statuses_in_the_order_of_the_keys(self, online: OnlineUnderTest) -> None:
        ids = new_ids(3)
        write(online.store, V1, embedding_rows(V1, ids[:2], value=3.0))
        vectors, moments, status = online.reader.read_matrix(V1, [ids[1], ids[2], ids[0], ids[1]], now=NOON)
        assert (vectors.dtype, vectors.shape) == (np.float32, (4, DIMS[V1]))
        assert status.tolist() == [PRESENT, MISSING, PRESENT, PRESENT]
        assert np.isnan(vectors[1]).all()
        assert (vectors[[0, 2, 3]] == 3.0).all()
        assert moments.tolist() == [NOON.replace(tzinfo=None), None, *[NOON.replace(tzinfo=None)] * 2]

    @pytest.mark.parametrize(
        ("age", "status"),
        [(TTL, PRESENT), (TTL + MICROSECOND, OUTSIDE_MAX_AGE), (-MICROSECOND, MISSING), (dt.timedelta(0), PRESENT)],
    )
    def test_ttl_is_a_closed_window(self, online: OnlineUnderTest, age: dt.timedelta, status: str) -> None:
        ids = new_ids(1)
        write(online.store, V1, embedding_rows(V1, ids))
        vectors, _, found = online.reader.read_matrix(V1, ids, now=NOON + age)
        assert found.tolist() == [status]
        assert np.isnan(vectors).all() == (status != PRESENT)

    def test_get_online_features_enforces_the_ttl_by_the_wall_clock(self, online: OnlineUnderTest) -> None:
        ids, now = new_ids(3), dt.datetime.now(dt.UTC)
        write(online.store, V1, embedding_rows(V1, ids[:2], at=[now - HOUR, now - TTL - HOUR]))
        response = online.store.get_online_features([f"{V1}:embedding", f"{V1}:clicks"], {"pin_id": ids.tolist()})
        assert response.to_dict()["clicks"] == [1, None, None]
        assert response.to_dict()["embedding"] == [[1.0] * DIMS[V1], None, None]
        present, not_found, outside_max_age = 1, 3, 4
        vectors = dict(zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True))
        assert list(vectors["clicks"].statuses) == [present, outside_max_age, not_found]

    @pytest.mark.parametrize("order", list(permutations(range(3))))
    def test_newest_row_stays_in_whatever_order_rows_arrive(
        self, online: OnlineUnderTest, order: tuple[int, ...]
    ) -> None:
        ids = new_ids(1)
        for step in order:
            write(online.store, V1, embedding_rows(V1, ids, value=step, at=NOON + step * MICROSECOND))
        assert online.clicks(V1, ids, NOON + HOUR) == [2]

    def test_older_rows_are_not_counted_as_written(self, online: OnlineUnderTest) -> None:
        ids = new_ids(3)
        assert write(online.store, V1, embedding_rows(V1, ids[:1], value=5, at=NOON + HOUR)) == 1
        assert write(online.store, V1, embedding_rows(V1, ids)) == 2
        assert online.clicks(V1, ids, NOON + HOUR) == [5, 1, 1]

    def test_last_write_stays_when_event_timestamps_are_equal(self, online: OnlineUnderTest) -> None:
        ids = new_ids(1)
        for value in (7, 6):
            write(online.store, V1, embedding_rows(V1, ids, value=value))
        assert online.clicks(V1, ids) == [6]

    def test_newest_of_one_table_stays_then_the_newest_created(self, online: OnlineUnderTest) -> None:
        one, two = new_ids(2).tolist()
        newest_first = embedding_rows(V1, [one, one], value=1, at=[NOON, NOON - HOUR])
        rows = [embedding_rows(V1, [two], value=value, created=NOON + value * HOUR) for value in (9, 8)]
        assert write(online.store, V1, newest_first) == 1
        assert write(online.store, V1, pa.concat_tables(rows)) == 1
        moments = online.reader.read_matrix(V1, [one], now=NOON)[1]
        assert moments.tolist() == [NOON.replace(tzinfo=None)]
        assert online.clicks(V1, [two]) == [9]

    def test_protobuf_rows_are_kept_in_order_too(self, online: OnlineUnderTest) -> None:
        ids = new_ids(1)
        write(online.store, V1, embedding_rows(V1, ids, value=5))
        for value, at in ((4, NOON - HOUR), (6, NOON + HOUR), (3, NOON)):
            frame = embedding_rows(V1, ids, value=value, at=at, created=at).to_pandas()
            online.store.write_to_online_store(V1, frame)
        assert online.clicks(V1, ids, NOON + HOUR) == [6]

    def test_writers_at_once_leave_the_newest_row_whole(self, online: OnlineUnderTest) -> None:
        ids = new_ids(200)
        clients = [online.other_client() for _ in range(4)]

        def write_some(writer: int) -> None:
            for hour in range(writer, 20, len(clients)):
                write(clients[writer], V1, embedding_rows(V1, ids, value=hour, at=NOON + hour * HOUR))

        with ThreadPoolExecutor(len(clients)) as pool:
            list(pool.map(write_some, range(len(clients))))
        rows = online.reader.read([V1], ids, now=NOON + 20 * HOUR)[V1]
        assert (rows.matrix() == 19).all()
        assert set(rows.column("clicks").to_pylist()) == {19}

    def test_two_processes_leave_the_newest_row(self, online: OnlineUnderTest) -> None:
        ids = new_ids(100).tolist()
        context = multiprocessing.get_context("fork")
        orders = ([5, 1, 4], [2, 3, 0])
        writers = [
            context.Process(target=_write_in_another_process, args=(online.folder, online.settings, ids, hours))
            for hours in orders
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert [writer.exitcode for writer in writers] == [0, 0]
        assert set(online.clicks(V1, ids, NOON + 6 * HOUR)) == {5}

    def test_reads_see_whole_rows_while_they_are_replaced(self, online: OnlineUnderTest) -> None:
        ids = new_ids(50)
        write(online.store, V1, embedding_rows(V1, ids, value=0))

        def replace_all() -> None:
            client = online.other_client()
            for step in range(1, 15):
                write(client, V1, embedding_rows(V1, ids, value=step, at=NOON + step * MICROSECOND))

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(replace_all)
            while not writing.done():
                rows = online.reader.read([V1], ids, now=NOON + HOUR)[V1]
                assert (rows.matrix()[:, 0] == rows.column("clicks").to_numpy()).all()
            writing.result()

    def test_versions_lie_side_by_side_and_come_in_one_read(self, online: OnlineUnderTest) -> None:
        ids = new_ids(2)
        write(online.store, V1, embedding_rows(V1, ids, value=1))
        write(online.store, V2, embedding_rows(V2, ids[:1], value=2, at=NOON - 3 * TTL))
        rows = online.reader.read("both", ids, now=NOON)
        assert {view: found.matrix().shape for view, found in rows.items()} == {V1: (2, 4), V2: (2, 8)}
        assert rows[V1].status.tolist() == [PRESENT, PRESENT]
        assert rows[V2].status.tolist() == [OUTSIDE_MAX_AGE, MISSING]

    def test_string_and_composite_keys(self, online: OnlineUnderTest) -> None:
        (pin,) = new_ids(1).tolist()
        at = pa.array([NOON] * 2, MOMENT)
        surfaces = [f"home-{pin}", ""]
        write(online.store, "by_surface", pa.table({"surface": surfaces, "clicks": [1, 2], "event_timestamp": at}))
        pairs = {"pin_id": [pin, pin], "surface": surfaces}
        write(online.store, "by_pair", pa.table({**pairs, "clicks": [3, 4], "event_timestamp": at}))
        assert online.clicks("by_surface", [surfaces[0], "nowhere", ""]) == [1, None, 2]
        assert online.clicks("by_pair", {"surface": surfaces, "pin_id": [pin, pin + 1]}) == [3, None]
        answer = online.store.get_online_features(["by_pair:clicks"], [{"surface": "", "pin_id": pin}]).to_dict()
        assert answer["clicks"] == [4]

    def test_empty_tables_and_empty_reads(self, online: OnlineUnderTest) -> None:
        assert write(online.store, V1, embedding_rows(V1, [])) == 0
        vectors, moments, status = online.reader.read_matrix(V1, [], now=NOON)
        assert (vectors.shape, len(moments), len(status)) == ((0, DIMS[V1]), 0, 0)
        online.store._get_provider().online_store.online_write_batch(
            online.store.config, online.store.get_feature_view(V1), [], None
        )

    def test_hundred_thousand_keys_in_one_read(self, online: OnlineUnderTest) -> None:
        ids = new_ids(100_000)
        held = ids[::10]
        assert write(online.store, V1, embedding_rows(V1, held, value=2)) == len(held)
        vectors, _, status = online.reader.read_matrix(V1, ids, now=NOON)
        assert vectors.shape == (100_000, DIMS[V1])
        assert (vectors[::10] == 2).all()
        assert np.array_equal(status == PRESENT, np.arange(100_000) % 10 == 0)

    def test_progress_counts_every_row(self, online: OnlineUnderTest) -> None:
        seen: list[int] = []
        store = online.store
        table = embedding_rows(V1, new_ids(5000))
        store._get_provider().online_store.write_table(store.config, store.get_feature_view(V1), table, seen.append)
        assert sum(seen) == 5000

    @pytest.mark.parametrize(
        ("column", "values", "reason"),
        [
            ("embedding", [[1.0] * 4, [1.0] * 3], "must be 4 wide \\(got 3\\)"),
            ("embedding", [[1.0] * 4, None], "must not be null"),
            ("embedding", [[1.0] * 4, [1.0, float("nan"), 1.0, 1.0]], "must be finite \\(got nan\\)"),
            ("embedding", [[1.0] * 4, [1.0, 1.0, float("-inf"), 1.0]], "must be finite \\(got -inf\\)"),
            ("rate", [1.0, float("inf")], "rate must be finite \\(got inf\\)"),
            ("event_timestamp", pa.array([NOON, None], MOMENT), "event_timestamp must not be null"),
        ],
    )
    def test_bad_rows_are_named_and_nothing_is_written(
        self, online: OnlineUnderTest, column: str, values: Any, reason: str
    ) -> None:
        ids = new_ids(2).tolist()
        table = embedding_rows(V1, ids)
        table = table.set_column(table.schema.get_field_index(column), column, pa.array(values))
        with pytest.raises(PackedWriteError, match=f"{V1} at entity key pin_id={ids[1]}: .*{reason}"):
            write(online.store, V1, table)
        assert online.clicks(V1, ids) == [None, None]

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"pin_id": None}, "lacks \\['pin_id'\\]"),
            ({"clicks": None}, "lacks \\['clicks'\\]"),
            ({"pin_id": pa.array([1, None])}, "pin_id must not be null"),
            ({"pin_id": pa.array(["a", "b"])}, "column pin_id must hold int64 \\(got string"),
            ({"clicks": pa.array([1.5, 2.0])}, "column clicks must hold int64 \\(got double"),
            ({"event_timestamp": pa.array([1, 2])}, "must hold timestamps"),
        ],
    )
    def test_bad_columns_are_named(self, online: OnlineUnderTest, change: dict[str, Any], reason: str) -> None:
        table = embedding_rows(V1, new_ids(2))
        for name, column in change.items():
            place = table.schema.get_field_index(name)
            table = table.remove_column(place) if column is None else table.set_column(place, name, column)
        with pytest.raises(PackedWriteError, match=f"{V1}.*{reason}"):
            write(online.store, V1, table)

    def test_awaited_calls_do_what_the_plain_ones_do(self, online: OnlineUnderTest) -> None:
        ids, now = new_ids(2), dt.datetime.now(dt.UTC)
        frame = embedding_rows(V1, ids[:1], value=3, at=now, created=now).to_pandas()

        async def written_and_read() -> Any:
            await online.store.write_to_online_store_async(V1, frame)
            return await online.store.get_online_features_async([f"{V1}:clicks"], {"pin_id": ids.tolist()})

        assert asyncio.run(written_and_read()).to_dict()["clicks"] == [3, None]

    def test_unknown_names_and_wrong_keys_are_refused(self, online: OnlineUnderTest) -> None:
        with pytest.raises(ValueError, match=r"got 'no_view'; views are \['by_pair'"):
            online.reader.read(["no_view"], [1])
        with pytest.raises(ValueError, match=r"field must be one of .* \(got 'depth'\)"):
            online.reader.read([V1], [1], fields={V1: ["depth"]})
        for wrong in (["1"], [1.5], [None], [True]):
            with pytest.raises(ValueError, match=f"pin_id of feature view {V1} must be INT64"):
                online.reader.read_matrix(V1, wrong)
        with pytest.raises(ValueError, match="surface of feature view by_surface must be STRING"):
            online.reader.read("by_surface", [1])
        with pytest.raises(ValueError, match="must have a time zone"):
            online.reader.read_matrix(V1, [1], now=dt.datetime(2024, 3, 1))

    @pytest.mark.parametrize("wrong", ["x", b"x", [1], 2**70])
    def test_feasts_own_read_names_view_and_key_of_another_type(self, online: OnlineUnderTest, wrong: object) -> None:
        with pytest.raises(
            ValueError, match=rf"key pin_id of feature view {V1} must be INT64 \(got {re.escape(repr(wrong))}"
        ):
            online.store.get_online_features([f"{V1}:clicks"], {"pin_id": [1, wrong]})
        with pytest.raises(ValueError, match=r"join keys .'surface'. of feature view by_pair must not be null"):
            online.store.get_online_features(["by_pair:clicks"], [{"pin_id": 1, "surface": None}])

    def test_on_demand_view_that_is_stored_is_read(self, online: OnlineUnderTest) -> None:
        """Feast writes and reads it as any other; it has no TTL."""
        view = OnDemandFeatureView(
            name="doubled",
            entities=[online.store.get_entity("pin")],
            sources=[online.store.get_feature_view(V1)],
            schema=[Field(name="double", dtype=Float64)],
            udf=lambda inputs: inputs.assign(double=2.0 * inputs["rate"]),
            udf_string="double",
            mode="pandas",
            write_to_online_store=True,
        )
        online.store.apply([view])
        ids = new_ids(2)
        rows = embedding_rows(V1, ids[:1], value=3, created=NOON).to_pandas()
        online.store.write_to_online_store("doubled", rows)
        answer = online.store.get_online_features(["doubled:double"], {"pin_id": ids.tolist()}).to_dict()
        assert answer["double"] == [3.0, None]
