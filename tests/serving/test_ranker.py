"""Rankers: user and context once per request where a program takes them so, and with every candidate where not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import onnx
import onnx.parser
import pyarrow as pa
import pytest

from feature_repo.encoding import CategoricalInput, DenseInput, Encoder, InputSpec
from feature_repo.release.manifest import RankerArtifact
from serving.onnx_model import load_model
from serving.ranker import Ranker, RankingModel
from tests.serving.tiny_run import HEAD

NOW = datetime(2026, 1, 10, tzinfo=UTC)
BY_ROW = """ranker (float[B, 2] user_dense, float[B, 2] pin_dense, int64[B, 1] context_categorical)
                    => (float[B] click) {
    first = Constant<value_int = 0>() u = Gather<axis = 1>(user_dense, first) p = Gather<axis = 1>(pin_dense, first)
    index = Gather<axis = 1>(context_categorical, first) s = Cast<to = 1>(index) us = Add(u, s) click = Mul(us, p) }"""
BY_REQUEST = """ranker (float[R, 2] user_dense, float[B, 2] pin_dense, int64[R, 1] context_categorical,
                        int64[B] request_row) => (float[B] click) {
    first = Constant<value_int = 0>() u = Gather<axis = 1>(user_dense, first) p = Gather<axis = 1>(pin_dense, first)
    index = Gather<axis = 1>(context_categorical, first) s = Cast<to = 1>(index) us = Add(u, s)
    each = Gather<axis = 0>(us, request_row) click = Mul(each, p) }"""


def ranker(program: str, folder: Path) -> Ranker:
    """A ranker whose logit is (age + number of the surface) * price."""
    file = folder / "ranker.onnx"
    onnx.save(onnx.parser.parse_model(HEAD + program), str(file))
    artifact = RankerArtifact(model=file.name, output="click")

    def dense(side: str, column: str) -> Encoder:
        return Encoder(InputSpec(side=side, dense=(DenseInput(column=column, log=False, mean=0.0, scale=1.0),)))

    surface = CategoricalInput(column="surface", vocabulary=("home", "search"))
    return Ranker(
        user=dense("user", "age"),
        pin=dense("pin", "price"),
        context=Encoder(InputSpec(side="context", categorical=(surface,))),
        pctr=RankingModel(model=load_model(file, "click", threads=1), artifact=artifact),
        pcvr=None,
    )


@pytest.mark.parametrize(("program", "takes_requests"), [(BY_ROW, False), (BY_REQUEST, True)])
def test_program_gets_the_request_as_it_takes_it(program: str, takes_requests: bool, tmp_path: Path) -> None:
    made = ranker(program, tmp_path)
    assert made.pctr.takes_requests is takes_requests
    pins = pa.table({"price": [0.0, 0.5, -1.0]})
    scores = made.score(pa.table({"age": [1.0]}), pins, "search", NOW)
    # Logits 0, 1.5 and -3.
    assert scores.pctr == pytest.approx([0.5, 0.8175744762, 0.0474258732])
