"""Imports of our three packages, read from their syntax trees without running anything."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("feature_repo", "trainers", "serving")


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """One imported module."""

    file: str
    """File that imports it, relative to the project."""
    module: str
    """Dotted name; for `from x import y` both `x` and `x.y` are listed."""

    @property
    def top(self) -> str:
        """Top-level package of the module."""
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file} imports {self.module}"


def imports_of(*packages: str) -> list[Import]:
    """Every import of the packages, wherever in a file it stands."""
    files = [file for package in packages for file in sorted((ROOT / package).rglob("*.py"))]
    return [found for file in files for found in imports_in(file.read_text(), str(file.relative_to(ROOT)))]


def imports_in(source: str, file: str) -> Iterator[Import]:
    """Every import of one source text."""
    for node in ast.walk(ast.parse(source)):
        for module in _modules(node, file):
            yield Import(file=file, module=module)


def third_party(found: Import) -> bool:
    """Whether the module comes from a distribution: not ours and not of the standard library."""
    return found.top not in sys.stdlib_module_names and found.top not in (*PACKAGES, "tests")


def _modules(node: ast.AST, file: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = Path(file).parts[:-1]
    above = package[: len(package) - node.level + 1] if node.level else ()
    origin = ".".join((*above, *filter(None, [node.module])))
    return [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
