"""What a manifest declares to Feast."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from feast import FeatureService, FeatureView
from feast.repo_operations import get_repo_files
from feast.types import Array, Float32, Float64, Int64, String, UnixTimestamp

from feature_repo.contract import AttributeField, EmbeddingVersion, consumer_services
from feature_repo.declarations import declare, feature_views, load
from feature_repo.layout import PACKAGE
from tests.feature_repo.repos import DIM, MANIFEST

CTR_2 = EmbeddingVersion(model="ctr", version=2, dim=DIM)


def fields_of(view: FeatureView) -> dict[str, object]:
    return {field.name: field.dtype for field in view.features}


def test_declare_names_every_view_and_service() -> None:
    objects = declare(MANIFEST)
    assert {name for name, item in objects.items() if isinstance(item, FeatureView)} == {
        "user_activity",
        "pin_activity",
        "pin_attributes",
        "user_history_before",
        "user_embedding_ctr_v1",
        "pin_embedding_ctr_v1",
        "user_embedding_cvr_v1",
        "pin_embedding_cvr_v1",
    }
    variants = ["", "__ctr_v1__cvr_v1"]
    variants += [f"__{prefix}{model}_v1" for prefix in ("", "user_", "pin_") for model in ("ctr", "cvr")]
    services = {f"{consumer}{variant}" for consumer in ("ranking", "retrieval") for variant in variants}
    services |= {"upstream", "upstream_user", "upstream_pin", "retrieval_histories"}
    assert {name for name, item in objects.items() if isinstance(item, FeatureService)} == services


@pytest.mark.parametrize(
    ("service", "views"),
    [
        ("upstream", ("user_activity", "pin_activity", "pin_attributes", "user_history_before")),
        ("ranking", ("user_activity", "pin_activity", "pin_attributes")),
        (
            "retrieval__pin_ctr_v1",
            ("user_activity", "pin_activity", "pin_attributes", "user_history_before", "pin_embedding_ctr_v1"),
        ),
        ("retrieval_histories", ("user_history_before",)),
    ],
)
def test_service_reads_the_declared_views(service: str, views: tuple[str, ...]) -> None:
    assert consumer_services(MANIFEST)[service].views == views
    declared = declare(MANIFEST)[service]
    assert tuple(projection.name for projection in declared.feature_view_projections) == views


def test_services_pair_every_ctr_version_with_every_cvr_version() -> None:
    manifest = replace(MANIFEST, embeddings=(*MANIFEST.embeddings, CTR_2))
    names = consumer_services(manifest)
    assert {"ranking__ctr_v1__cvr_v1", "ranking__ctr_v2__cvr_v1"} <= names.keys()
    assert names["ranking__ctr_v2"].versions == (CTR_2,)


def test_services_read_one_version_of_each_of_some_models() -> None:
    unified = EmbeddingVersion(model="unified", version=1, dim=DIM)
    names = consumer_services(replace(MANIFEST, embeddings=(*MANIFEST.embeddings, unified)))
    several = [tuple(version.model for version in each.versions) for each in names.values() if len(each.versions) > 1]
    pairs = [("ctr", "cvr"), ("ctr", "unified"), ("cvr", "unified"), ("ctr", "cvr", "unified")]
    assert several == [*pairs, *pairs]
    views = names["ranking__ctr_v1__cvr_v1__unified_v1"].views
    assert views[-2:] == ("user_embedding_unified_v1", "pin_embedding_unified_v1")
    assert names["retrieval__unified_v1"].versions == (unified,)


def test_views_take_their_ttl_from_the_manifest() -> None:
    views = feature_views(replace(MANIFEST, activity_ttl_hours=30, attributes_ttl_hours=0))
    assert views["user_activity"].ttl == timedelta(hours=30)
    assert views["pin_attributes"].ttl == timedelta(0)
    assert views["pin_embedding_ctr_v1"].ttl == timedelta(hours=48)


def test_embedding_view_has_the_vector_with_its_width_and_the_cut_off() -> None:
    view = feature_views(MANIFEST)["user_embedding_ctr_v1"]
    assert fields_of(view) == {"embedding": Array(Float32), "data_cutoff": UnixTimestamp}
    assert view.features[0].vector_length == DIM
    assert view.tags["upstream_model"] == "ctr"


def test_attribute_types_follow_their_kind() -> None:
    attributes = (
        AttributeField(name="age", kind="dense", type="float"),
        AttributeField(name="city", kind="categorical", type="int64"),
        AttributeField(name="tags", kind="multi_valued", type="string"),
        AttributeField(name="image", kind="vector", type="float", dim=8),
    )
    view = feature_views(replace(MANIFEST, user_attributes=attributes))["user_attributes"]
    assert fields_of(view) == {"age": Float64, "city": Int64, "tags": Array(String), "image": Array(Float32)}


def test_histories_are_online_for_retrieval() -> None:
    assert feature_views(MANIFEST)["user_history_before"].online


def test_services_have_no_histories_of_their_own_without_any() -> None:
    assert "retrieval_histories" not in consumer_services(replace(MANIFEST, histories=()))


def test_load_gives_the_entities_alone_when_there_is_no_manifest(tmp_path: Path) -> None:
    assert list(load(tmp_path)) == ["user", "pin"]


def test_feast_loads_definitions_alone() -> None:
    assert [path.name for path in get_repo_files(PACKAGE)] == ["definitions.py"]
