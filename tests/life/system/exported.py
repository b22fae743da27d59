"""Programs in the place of exported models: whatever was trained, a release says by its answers which spaces it reads.

Dims: B batch, d width of a vector, E width of a candidate vector of two-towers.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
from torch import nn

from tests.life.releases.small_release import programs
from tests.serving.tiny_run import HEAD
from trainers.data.examples import Examples
from trainers.retrieval.model import CandidateTower, QueryTower

WIDTH = 8
DOT = f"""pctr (float[B, {WIDTH + 1}] user_vector_0, float[B, {WIDTH + 1}] pin_vector_0) => (float[B] click) {{
    from = Constant<value_ints = [0]>() to = Constant<value_ints = [{WIDTH}]>() axis = Constant<value_ints = [1]>()
    u = Slice(user_vector_0, from, to, axis) v = Slice(pin_vector_0, from, to, axis)
    uv = Mul(u, v) click = ReduceSum<keepdims = 0>(uv, axis) }}"""
"""A ranker that knows nothing but the dot product of both vectors."""


def plain_programs(dim: int) -> dict[str, str]:
    """Programs of a release whose candidate vectors are upstream vectors."""
    return {**programs(dim), "pctr.onnx": DOT}


def write_program(text: str, file: Path) -> None:
    """Write a program that is given as text."""
    onnx.save(onnx.parser.parse_model(HEAD + text), str(file))


def export(model: nn.Module, examples: Examples, file: Path) -> float:
    """What `onnx_export.export` does, with upstream vectors in the place of what was learned from them."""
    del examples
    text = DOT
    if isinstance(model, QueryTower | CandidateTower):
        text = _tower(model.model.config.vector_dim, is_query=isinstance(model, QueryTower))
    write_program(text, file)
    return 0.0


def _tower(vector_dim: int, *, is_query: bool) -> str:
    """The upstream vector, then zeros up to E; a query ends with the weight of popularity."""
    side, name, width = ("user", "query", vector_dim + 1) if is_query else ("pin", "candidate", vector_dim)
    last = f"""flags = Constant<value_ints = [{WIDTH + 1}]>() flag = Slice({side}_vector_0, to, flags, axis)
        {name} = Concat<axis = 1>(padded, flag)"""
    return f"""{name} (float[B, {WIDTH + 1}] {side}_vector_0) => (float[B, {width}] {name}) {{
        from = Constant<value_ints = [0]>() to = Constant<value_ints = [{WIDTH}]>() axis = Constant<value_ints = [1]>()
        vector = Slice({side}_vector_0, from, to, axis)
        ends = Constant<value_ints = [0, 0, 0, {vector_dim - WIDTH}]>() padded = Pad(vector, ends)
        {last if is_query else f"{name} = Identity(padded)"} }}"""
