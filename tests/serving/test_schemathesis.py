"""Requests that nobody would think of, made from the OpenAPI document: no route fails of itself on any of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from serving.app import create_app
from serving.settings import Settings
from tests.serving.test_openapi import READS, WATCHED, WRITES
from tests.serving.tiny_run import NOW

TOKEN = "a token of tests, long enough"
BEARER = {"authorization": f"Bearer {TOKEN}"}
CHECKS = (not_a_server_error, response_schema_conformance, status_code_conformance)
LIMITS = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def app(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    run = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("fuzzed") / "run"))
    made = create_app(Settings(run=run, as_of=NOW, threads=1, token=TOKEN))  # type: ignore[arg-type]
    with TestClient(made):
        yield made


@pytest.fixture(scope="module")
def schema(app: FastAPI) -> BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("path", sorted(READS | WRITES | WATCHED))
def test_no_request_makes_the_server_fail(schema: BaseSchema, path: str) -> None:
    """Answers also are what the document says, with a status that it names."""
    for operation in schema[path].values():

        @LIMITS
        @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
        def well_formed(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=BEARER, checks=CHECKS)

        @LIMITS
        @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        def ill_formed(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=BEARER, checks=CHECKS)

        well_formed()
        if "requestBody" in operation.definition.raw or operation.path_parameters:
            ill_formed()
