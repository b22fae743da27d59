"""Who may import whom: the rules of docs/architecture.md, read from syntax trees."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator

import pytest

from tests.imports import PACKAGES, ROOT, Import, imports_in, imports_of, third_party

FEAST_FOLDERS = ("trainers/data/", "trainers/commands/")
FEAST_FILES = ("publish.py", "cli.py", "consumer_inputs.py")
MODEL_IMPORTS = {"torch", "jaxtyping"}
LEARNERS = ("upstream", "retrieval", "ranking")
LONGEST_FUNCTION = 50
"""Lines, decorators left out: a table of cases above a test is data."""


def inside(found: Iterable[Import], *modules: str) -> Iterator[Import]:
    """Imports of one of the modules or of something in it."""
    return (each for each in found if any(f"{each.module}.".startswith(f"{module}.") for module in modules))


def listed(found: Iterable[Import]) -> list[str]:
    return sorted({str(each) for each in found})


def test_contract_imports_the_standard_library_only() -> None:
    found = [each for each in imports_of("feature_repo") if each.file == "feature_repo/contract.py"]
    assert found
    assert [each for each in found if each.top not in sys.stdlib_module_names] == []


def test_feature_repo_imports_neither_trainers_nor_serving() -> None:
    assert listed(inside(imports_of("feature_repo"), "trainers", "serving", "torch")) == []


def test_trainers_import_feast_only_where_features_are_read_or_published() -> None:
    found = inside(imports_of("trainers"), "feast")
    assert (
        listed(
            each
            for each in found
            if not each.file.startswith(FEAST_FOLDERS) and each.file.rpartition("/")[2] not in FEAST_FILES
        )
        == []
    )


@pytest.mark.parametrize("learner", LEARNERS)
def test_embeddings_cross_between_learners_only_through_feast(learner: str) -> None:
    found = [each for each in imports_of("trainers") if each.file.startswith(f"trainers/{learner}/")]
    others = [f"trainers.{other}" for other in LEARNERS if other != learner]
    assert listed(inside(found, *others)) == []


def test_trainers_do_not_import_serving() -> None:
    assert listed(inside(imports_of("trainers"), "serving")) == []


def test_model_modules_import_torch_alone() -> None:
    found = [each for each in imports_of("trainers") if each.file.startswith("trainers/modules/")]
    assert listed(each for each in found if third_party(each) and each.top not in MODEL_IMPORTS) == []


def test_serving_imports_no_training_code() -> None:
    assert listed(inside(imports_of("serving"), "trainers", "torch", "onnx", "sklearn")) == []


def test_nothing_is_unpickled() -> None:
    unsafe = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
    assert listed(inside(imports_of(*PACKAGES), *unsafe)) == []


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "docs"])
def test_functions_are_short(folder: str) -> None:
    long = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of(node) > LONGEST_FUNCTION
    ]
    assert long == []


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b, c", ["a.b", "c"]),
        ("from a import b as d", ["a", "a.b"]),
        ("from . import b", ["trainers.data", "trainers.data.b"]),
        ("from ..upstream.model import Tower", ["trainers.upstream.model", "trainers.upstream.model.Tower"]),
        ("def late():\n    import feast", ["feast"]),
    ],
)
def test_imports_in_sees_every_form_of_import(source: str, expected: list[str]) -> None:
    assert [each.module for each in imports_in(source, "trainers/data/frames.py")] == expected
