"""What `serving` may import: no training code, no torch, nothing that unpickles."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import serving
from tests.imports import ROOT

FILES = sorted(Path(str(serving.__file__)).parent.rglob("*.py"))
FORBIDDEN = {"trainers", "torch", "pickle", "joblib", "cloudpickle", "dill", "pandas"}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_serving_file_imports_nothing_forbidden(path: Path) -> None:
    assert imported(path) & FORBIDDEN == set()


def test_serving_starts_without_feast_torch_or_trainers() -> None:
    """Feast costs seconds and brings torch; it is imported when the release is loaded, not with the module."""
    code = "import sys, serving.app; print(*sorted({'feast', 'torch', 'trainers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("module", ["serving.onnx_model", "trainers, onnxruntime"])
def test_onnx_runtime_reports_to_nobody(tmp_path: Path, module: str) -> None:
    """It would keep what it sends in a database under the home folder."""
    kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("ORT_")}
    environment = {**kept, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", f"import {module}"], env=environment, check=True)
    assert [file for file in tmp_path.rglob("*") if "onnxruntime" in file.name] == []
