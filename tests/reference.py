"""Reference pages that are made from the code: `python -m tests.reference` writes them, a test compares them."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer.main

from serving.app import create_app
from serving.metrics import Metrics
from serving.settings import Settings
from tests.imports import ROOT
from trainers.cli import app
from trainers.data.dataset import Attribute, Conversion, Task, Window
from trainers.data.own_data import Keys, OwnDataSpec, Tables
from trainers.data.source_files import LabelRule, SourceTable, Timestamp

FOLDER = ROOT / "docs" / "reference"
_MADE = "Made from the code by `python -m tests.reference`; don't edit by hand."


def pages() -> dict[Path, str]:
    """Text of every page by its path."""
    made = {"cli": _cli(), "configuration": _configuration(), "http": _http(), "metrics": _metrics()}
    return {FOLDER / f"{name}.md": "\n".join(lines).rstrip() + "\n" for name, lines in made.items()}


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        cells = (" ".join(cell.replace("|", "\\|").split()) for cell in row)
        yield f"| {' | '.join(cells)} |"
    yield ""


def _cli() -> Iterator[str]:
    yield from ("# Command reference", "", _MADE, "[cli.md](../cli.md) explains runs, exit codes and JSON.", "")
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        if inner is None:
            yield from _command(f"headwater {name}", command)
        else:
            for each, found in inner.items():
                yield from _command(f"headwater {name} {each}", found)


def _command(title: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    metavars = " ".join(each.metavar or each.name.upper() for each in arguments)
    yield from (f"## `{f'{title} {metavars}'.strip()}`", "", " ".join((command.help or "").split()), "")
    rows = [_option(each) for each in command.params if each not in arguments and not each.hidden]
    if rows:
        yield from _table(("option", "value", "meaning"), rows)


def _option(option: Any) -> tuple[str, ...]:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    value = "" if option.is_flag else f"`{option.metavar or option.type.name.upper()}`"
    needed = " Required." if option.required else ""
    return names, value, f"{option.help or ''}{needed}"


def _configuration() -> Iterator[str]:
    yield from ("# Configuration reference", "", _MADE, "")
    yield from ("## The server's environment", "", "Every variable begins with `HEADWATER_`.", "")
    yield from _model(Settings, prefix="HEADWATER_", upper=True)
    yield from ("## The declaration of a dataset", "", "[own_data.md](../own_data.md) explains the keys.", "")
    parts = (OwnDataSpec, Attribute, Conversion, Task, Window, Tables, Keys, SourceTable, Timestamp, LabelRule)
    for model in parts:
        yield from (f"### {_heading(model.__name__)}", "", " ".join((model.__doc__ or "").split("\n\n")[0].split()), "")
        yield from _model(model)


def _heading(name: str) -> str:
    return {"OwnDataSpec": "The file", "SourceTable": "A table", "LabelRule": "A label's rule"}.get(name, name)


def _model(model: Any, prefix: str = "", *, upper: bool = False) -> Iterator[str]:
    meanings = _meanings(model)
    rows = []
    for name, field in model.model_fields.items():
        shown = f"{prefix}{name.upper() if upper else name}"
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
        rows.append((f"`{shown}`", f"`{_kind(field.annotation)}`", default, meanings.get(name, "")))
    yield from _table(("key", "type", "default", "meaning"), rows)


def _kind(annotation: Any) -> str:
    """An annotation as a person would write it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is Literal:
        return " or ".join(repr(each) for each in inner)
    if origin in (Union, UnionType):
        return " or ".join(_kind(each) for each in inner if each is not NoneType)
    if origin is tuple:
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return f"mapping of {_kind(inner[0])} to {_kind(inner[1])}"
    return str(annotation.__name__)


def _meanings(model: Any) -> dict[str, str]:
    """Docstring below each field of a class, and of those it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not base.__module__.startswith(("trainers.", "serving.")):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = tree.body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = str(text.value.value)  # type: ignore[union-attr]
    return found


def _http() -> Iterator[str]:
    openapi = create_app(Settings(run=Path("runs/demo"))).openapi()
    yield from ("# HTTP reference", "", _MADE, "[serving.md](../serving.md) explains what the answers mean.", "")
    yield from ("A running server shows the same, to try out, under `/docs`.", "")
    for path, methods in openapi["paths"].items():
        for method, route in methods.items():
            yield from _route(f"{method.upper()} {path}", route)
    yield from ("## Schemas", "")
    for name, schema in sorted(openapi["components"]["schemas"].items()):
        if schema.get("properties"):
            yield from (f"### {name}", "", " ".join(schema.get("description", "").split()), "")
            required = schema.get("required", [])
            rows = [
                (f"`{key}`", f"`{_type(value)}`", "yes" if key in required else "", value.get("description", ""))
                for key, value in schema["properties"].items()
            ]
            yield from _table(("key", "type", "required", "meaning"), rows)


def _route(title: str, route: dict[str, Any]) -> Iterator[str]:
    yield from (f"## `{title}`", "", " ".join(route.get("description", route.get("summary", "")).split()), "")
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if body:
        yield from (f"Body: `{_type(body)}`.", "")
    rows = [
        (code, answer.get("description", ""), f"`{_type(_json(answer))}`" if _json(answer) else "")
        for code, answer in route["responses"].items()
    ]
    yield from _table(("status", "meaning", "body"), rows)


def _json(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return " or ".join(json.dumps(each) for each in schema["enum"])
    return str(schema.get("type", "any"))


def _metrics() -> Iterator[str]:
    yield from ("# Metrics reference", "", _MADE, "", "`GET /metrics`, in Prometheus's text format:", "")
    found = list(Metrics()._registry.collect())
    yield from _table(
        ("metric", "kind", "meaning"), [(f"`{each.name}`", each.type, each.documentation) for each in found]
    )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
