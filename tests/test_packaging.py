"""What is declared: every import in the right extra, every pin in its range, and the commands that the texts name."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.imports import ROOT, Import, imports_of, third_party

EXTRAS: dict[str, tuple[str, ...]] = {
    "feature_repo": ("milvus",),
    "trainers": ("train", "serve", "tracking", "maps"),
    "serving": ("serve", "tracing"),
    "tests": ("train", "serve", "milvus", "tracking", "tracing", "dev"),
}
"""Extras that a package may count on beside the base install; trainers start the server."""
DISTRIBUTIONS = {"umap": "umap-learn"}
"""Of packages that the tests do without, where the import is called otherwise."""
BASE_FILES = ("trainers/cli.py", "trainers/commands/status.py", "trainers/run_config.py", "trainers/steps.py")


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]  # type: ignore[no-any-return]


def requirements(*extras: str) -> list[Requirement]:
    lines = [
        *project()["dependencies"],
        *(line for each in extras for line in project()["optional-dependencies"][each]),
    ]
    return [Requirement(line) for line in lines]


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def undeclared(found: list[Import], *extras: str) -> list[str]:
    """Imports of distributions that neither the base install nor the extras declare."""
    declared = {canonicalize_name(each.name) for each in requirements(*extras)}
    distributions = packages_distributions()
    missing = (
        each
        for each in found
        if third_party(each)
        and not any(
            canonicalize_name(name) in declared
            for name in distributions.get(each.top, [DISTRIBUTIONS.get(each.top, each.top)])
        )
    )
    return sorted({f"{each.file} imports {each.top}" for each in missing})


@pytest.mark.parametrize("package", list(EXTRAS))
def test_package_imports_only_what_its_extras_declare(package: str) -> None:
    assert undeclared(imports_of(package), *EXTRAS[package]) == []


def test_feature_repo_needs_milvus_for_the_milvus_store_alone() -> None:
    found = [each for each in imports_of("feature_repo") if "/milvus/" not in each.file]
    assert undeclared(found) == []


def test_command_line_starts_with_the_base_install() -> None:
    found = [each for each in imports_of("trainers") if each.file in BASE_FILES]
    assert {each.file for each in found} == set(BASE_FILES)
    assert undeclared(found) == []


def test_server_installs_without_training_parts() -> None:
    names = {canonicalize_name(each.name) for each in requirements("serve")}
    assert names.isdisjoint({"torch", "onnx", "onnxscript", "scikit-learn", "matplotlib"})


def test_constraints_pin_every_direct_dependency_inside_its_range() -> None:
    pins = constraints()
    direct = requirements(*project()["optional-dependencies"])
    assert [each.name for each in direct if canonicalize_name(each.name) not in pins] == []
    outside = [each for each in direct if pins[canonicalize_name(each.name)] not in each.specifier]
    assert [str(each) for each in outside] == []


def test_constraints_hold_plain_versions_that_any_index_can_serve() -> None:
    pins = constraints()
    assert [name for name, version in pins.items() if not re.fullmatch(r"[0-9][0-9a-z.]*", version)] == []
    assert {"pip", "wheel", "headwater"}.isdisjoint(pins)


def make_targets() -> dict[str, str]:
    """Recipes of the Makefile by target."""
    text = (ROOT / "Makefile").read_text()
    return dict(re.findall(r"^([a-z-]+):[^=\n]*\n((?:\t.*\n)*)", text, flags=re.MULTILINE))


def test_ci_runs_make_test_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec make test"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_make_test_lints_checks_types_and_runs_pytest_last() -> None:
    recipe = make_targets()["test"].splitlines()
    assert [line.strip().removeprefix("$(BIN)/") for line in recipe] == [
        "ruff check .",
        "ruff format --check .",
        "mypy",
        "OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile --maxfail 20 $(ARGS)",
    ]


@pytest.mark.parametrize("text", ["README.md", "CONTRIBUTING.md"])
def test_texts_name_only_targets_that_exist(text: str) -> None:
    named = set(re.findall(r"`make ([a-z]+)", (ROOT / text).read_text()))
    assert named <= set(make_targets())


def test_license_is_the_apache_license() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert project()["license"] == "Apache-2.0"
