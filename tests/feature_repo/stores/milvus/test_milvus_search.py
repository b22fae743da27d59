"""Search through Feast: the same answers as exact search, with the right Pin beside every vector."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

pytest.importorskip("pymilvus", reason="needs the extra `milvus`")
pytest.importorskip("milvus_lite", reason="needs the extra `milvus`")

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.types import Array, Float32, Int64, String, UnixTimestamp

STORE = "feature_repo.stores.milvus.packed_store.PackedMilvusOnlineStore"
NOW = datetime.now(UTC)
NUM_PINS, DIM, NUM_QUERIES, TOP_K = 3000, 16, 40, 20
MOMENT = pa.timestamp("us", tz="UTC")
PIN = Entity(name="pin", join_keys=["pin_id"], value_type=ValueType.INT64)


def view(name: str, dim: int, metric: str | None = "COSINE", ttl: timedelta = timedelta(days=2)) -> FeatureView:
    vector = Field(
        name="embedding", dtype=Array(Float32), vector_index=True, vector_length=dim, vector_search_metric=metric
    )
    fields = [vector, Field(name="clicks", dtype=Int64), Field(name="topic", dtype=String)]
    schema = [Field(name="pin_id", dtype=Int64), *fields, Field(name="listed_at", dtype=UnixTimestamp)]
    source = FileSource(path="unused.parquet", timestamp_field="event_timestamp")
    return FeatureView(name=name, entities=[PIN], schema=schema, source=source, ttl=ttl)


def open_store(folder: Path, *, versioned: bool = False, **settings: Any) -> FeatureStore:
    config = RepoConfig(
        project="search",
        provider="local",
        registry={"path": str(folder / "registry.db"), "enable_online_feature_view_versioning": versioned},
        online_store={"type": STORE, "path": "online.db", **settings},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    return FeatureStore(config=config)


def table(vectors: npt.NDArray[np.float32], at: datetime = NOW - timedelta(hours=1), first: int = 0) -> pa.Table:
    """Pins from `first` on; topics go round, clicks are the Pin's number, listing times a day apart."""
    ids = np.arange(first, first + len(vectors))
    return pa.table(
        {
            "pin_id": ids,
            "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
            "clicks": ids,
            "topic": [("food", "travel", "50% off")[pin % 3] for pin in ids],
            "listed_at": pa.array([datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=int(pin)) for pin in ids], MOMENT),
            "event_timestamp": pa.array([at] * len(ids), MOMENT),
        }
    )


def write(store: FeatureStore, name: str, rows: pa.Table) -> int:
    written: int = online(store).write_table(store.config, store.get_feature_view(name), rows)
    return written


def online(store: FeatureStore) -> Any:
    return store._get_provider().online_store


def search(store: FeatureStore, name: str, query: Any, top_k: int = TOP_K, **options: Any) -> dict[str, list[Any]]:
    features = options.pop("features", ["embedding", "clicks", "topic"])
    references = [f"{name}:{feature}" for feature in features]
    vector = None if query is None else np.asarray(query).tolist()
    found: dict[str, list[Any]] = store.retrieve_online_documents_v2(
        features=references, query=vector, top_k=top_k, **options
    ).to_dict()
    return found


@pytest.fixture(scope="module")
def vectors() -> npt.NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal((NUM_PINS, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> npt.NDArray[np.float32]:
    return np.random.default_rng(8).standard_normal((NUM_QUERIES, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, vectors: npt.NDArray[np.float32]) -> Iterator[FeatureStore]:
    """`NUM_PINS` Pins in exact indexes of three metrics."""
    found = open_store(tmp_path_factory.mktemp("flat"), index_type="FLAT")
    names = {"by_cosine": "COSINE", "by_product": "IP", "by_distance": "L2"}
    found.apply([PIN, *(view(name, DIM, metric) for name, metric in names.items())])
    for name in names:
        assert write(found, name, table(vectors)) == NUM_PINS
    yield found
    online(found).disconnect()


def scores(metric: str, query: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Higher is nearer."""
    if metric == "by_distance":
        return -np.linalg.norm(vectors - query, axis=1)
    products = vectors @ query
    if metric == "by_product":
        return products
    return products / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)


@pytest.mark.parametrize("metric", ["by_cosine", "by_product", "by_distance"])
def test_flat_index_answers_as_exact_search(
    store: FeatureStore, metric: str, vectors: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]
) -> None:
    for query in queries[:5]:
        found = search(store, metric, query)
        exact = np.argsort(-scores(metric, query, vectors))[:TOP_K]
        assert found["pin_id"] == exact.tolist()


def test_every_answer_holds_the_features_of_its_own_pin_nearest_first(
    store: FeatureStore, vectors: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]
) -> None:
    found = search(store, "by_cosine", queries[0])
    np.testing.assert_array_equal(np.array(found["embedding"], np.float32), vectors[found["pin_id"]])
    assert found["clicks"] == found["pin_id"]
    assert found["search_rank"] == list(range(1, TOP_K + 1))
    expected = scores("by_cosine", queries[0], vectors)[found["pin_id"]]
    np.testing.assert_allclose(found["distance"], expected, atol=1e-5)
    assert found["distance"] == sorted(found["distance"], reverse=True)


@pytest.mark.parametrize(
    "index",
    [
        {"index_type": "HNSW", "index_params": {"M": 16, "efConstruction": 200}, "search_params": {"ef": 128}},
        {"index_type": "IVF_FLAT", "index_params": {"nlist": 32}, "search_params": {"nprobe": 28}},
    ],
    ids=["hnsw", "ivf_flat"],
)
def test_approximate_index_finds_95_percent_of_exact_search(
    tmp_path: Path, index: dict[str, Any], vectors: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]
) -> None:
    approximate = open_store(tmp_path, **index)
    approximate.apply([PIN, view("pins", DIM)])
    write(approximate, "pins", table(vectors))
    client = online(approximate).client
    client.flush("search_pins")
    described = client.describe_index("search_pins", "vector_index_embedding")
    assert described["index_type"] == index["index_type"]
    assert described["params"] == index["index_params"]
    hits = 0
    for query in queries:
        exact = np.argsort(-scores("by_cosine", query, vectors))[:TOP_K]
        hits += len(set(exact.tolist()) & set(search(approximate, "pins", query)["pin_id"]))
    online(approximate).disconnect()
    assert hits >= 0.95 * NUM_QUERIES * TOP_K


def test_filters_compare_numbers_texts_and_moments(store: FeatureStore, queries: npt.NDArray[np.float32]) -> None:
    def found(*filters: ComparisonFilter) -> list[int]:
        both = CompoundFilter(type="and", filters=list(filters))
        pins: list[int] = search(store, "by_cosine", queries[0], filters=both)["pin_id"]
        return sorted(pins)

    assert found(
        ComparisonFilter(type="lt", key="clicks", value=9), ComparisonFilter(type="gte", key="clicks", value=7)
    ) == [7, 8]
    assert found(
        ComparisonFilter(type="in", key="pin_id", value=[9, 10, 100]),
        ComparisonFilter(type="eq", key="topic", value="travel"),
    ) == [10, 100]
    third = ComparisonFilter(type="lt", key="listed_at", value="2024-01-03T00:00:00+00:00")
    assert found(third) == [0, 1]
    assert found(ComparisonFilter(type="lte", key="listed_at", value=datetime(2024, 1, 3, tzinfo=UTC))) == [0, 1, 2]


def test_filter_on_something_else_names_what_there_is(store: FeatureStore, queries: npt.NDArray[np.float32]) -> None:
    wrong = ComparisonFilter(type="eq", key="colour", value="red")
    with pytest.raises(ValueError, match=r"feature view by_cosine must name one of .*'clicks'.*\(got 'colour'\)"):
        search(store, "by_cosine", queries[0], filters=wrong)


@pytest.mark.parametrize(("key", "value"), [("clicks", "many"), ("clicks", True), ("topic", 3), ("pin_id", "9")])
def test_filter_with_a_value_of_another_type_is_named(
    store: FeatureStore, queries: npt.NDArray[np.float32], key: str, value: object
) -> None:
    wrong = ComparisonFilter(type="eq", key=key, value=value)
    with pytest.raises(ValueError, match=rf"filter on {key} of feature view by_cosine must compare .*got {value!r}"):
        search(store, "by_cosine", queries[0], filters=wrong)


def test_join_key_may_be_asked_for_among_the_features(store: FeatureStore, queries: npt.NDArray[np.float32]) -> None:
    asked = search(store, "by_cosine", queries[0], features=["embedding", "pin_id", "clicks"])
    assert asked["pin_id"] == asked["clicks"]
    nothing = ComparisonFilter(type="eq", key="clicks", value=-1)
    assert search(store, "by_cosine", queries[0], features=["embedding", "pin_id"], filters=nothing)["pin_id"] == []


def test_search_by_text_finds_what_contains_it(store: FeatureStore, queries: npt.NDArray[np.float32]) -> None:
    for query in (None, queries[0]):
        found = search(store, "by_cosine", query, top_k=6, query_string="50% o", features=["embedding", "topic"])
        assert found["topic"] == ["50% off"] * 6
    with pytest.raises(ValueError, match="must request one of its text features"):
        search(store, "by_cosine", None, query_string="food", features=["clicks"])


@pytest.mark.parametrize(
    ("query", "options", "reason"),
    [
        ([1.0] * 3, {}, r"embedding of feature view by_product must be 16 finite numbers \(got 3 of them\)"),
        ([float("nan")] * DIM, {}, "must be 16 finite numbers"),
        ([1.0] * DIM, {"top_k": 0}, r"top_k must be from 1 to 16384 \(got 0\)"),
        ([1.0] * DIM, {"features": ["depth"]}, "depth"),
    ],
)
def test_search_that_does_not_fit_the_view_is_refused(
    store: FeatureStore, query: list[float], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises((ValueError, KeyError), match=reason):
        search(store, "by_product", query, **options)


def test_another_metric_than_that_of_the_index_is_refused(store: FeatureStore) -> None:
    registered = store.get_feature_view("by_product")
    with pytest.raises(ValueError, match=r"distance_metric of feature view by_product must be IP.*\(got 'COSINE'\)"):
        online(store).retrieve_online_documents_v2(store.config, registered, ["embedding"], [1.0] * DIM, 3, "COSINE")


def test_rows_outside_max_age_and_of_the_future_are_not_found(tmp_path: Path) -> None:
    aged = open_store(tmp_path)
    aged.apply([PIN, view("pins", 2)])
    rows = {0: timedelta(hours=1), 1: timedelta(days=2, hours=1), 2: -timedelta(hours=1)}
    for pin, age in rows.items():
        write(aged, "pins", table(np.ones((1, 2), np.float32), NOW - age, first=pin))
    found = search(aged, "pins", [1.0, 1.0])["pin_id"]
    online(aged).disconnect()
    assert found == [0]


def test_age_counts_from_the_last_materialization_when_the_clock_says_so(tmp_path: Path) -> None:
    """Of a log that ended long ago."""
    old = open_store(tmp_path, clock="materialized")
    old.apply([PIN, view("pins", 2)])
    ended = datetime(2020, 1, 5, tzinfo=UTC)
    for pin, age in {0: timedelta(hours=1), 1: timedelta(days=3)}.items():
        write(old, "pins", table(np.ones((1, 2), np.float32), ended - age, first=pin))
    assert search(old, "pins", [1.0, 1.0])["embedding"] == []
    old.registry.apply_materialization(old.get_feature_view("pins"), "search", ended - timedelta(days=9), ended)
    old.refresh_registry()
    found = search(old, "pins", [1.0, 1.0])["pin_id"]
    online(old).disconnect()
    assert found == [0]
