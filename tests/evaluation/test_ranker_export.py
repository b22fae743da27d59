"""Programs of rankers: one row of user and context for all candidates of a request, and no silent difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from feature_repo.encoding import REQUEST_ROW
from tests.modules.contract import BATCH
from tests.ranking.test_model import CONFIG, inputs
from trainers.data.examples import Examples
from trainers.evaluation.onnx_export import TOLERANCE, ExportError
from trainers.evaluation.ranker_export import export_ranker
from trainers.ranking.model import Ranker
from trainers.ranking.per_request import PerRequestRanker


def examples() -> Examples:
    """A few impressions, with one input that no ranker reads."""
    arrays = {name: value.numpy() for name, value in inputs().items()} | {"user_id_9": np.zeros(BATCH, np.int32)}
    return Examples(inputs=arrays, labels=np.empty((BATCH, 0), np.float32))


@pytest.fixture(scope="module", params=["dcn", "dhen"])
def ranker(request: pytest.FixtureRequest) -> Ranker:
    """A ranker of each backbone."""
    torch.manual_seed(0)
    return Ranker(replace(CONFIG, backbone=request.param)).eval()


@pytest.fixture(scope="module")
def program(ranker: Ranker, tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    """Its program."""
    file = tmp_path_factory.mktemp("onnx") / "ranker.onnx"
    assert export_ranker(ranker, examples(), file) <= TOLERANCE
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def test_program_says_which_inputs_have_a_row_per_request(program: onnxruntime.InferenceSession) -> None:
    rows = {each.name: each.shape[0] for each in program.get_inputs()}
    assert rows == {
        "context_categorical": "requests",
        "user_dense": "requests",
        "user_vector_0": "requests",
        "pin_dense": "candidates",
        "pin_vector_0": "candidates",
        "pin_vector_1": "candidates",
        REQUEST_ROW: "candidates",
    }


@pytest.mark.parametrize("requests", [[0], [0] * 5, [0, 1, 2, 3, 4, 5], [1, 0, 1]])
def test_program_scores_candidates_of_any_requests(
    ranker: Ranker, program: onnxruntime.InferenceSession, requests: list[int]
) -> None:
    rows, given = torch.tensor(requests), inputs()
    pins = {name: value[: len(requests)] for name, value in given.items() if name.startswith("pin_")}
    once = {name: value[: max(requests) + 1] for name, value in given.items() if name not in pins}
    with torch.inference_mode():
        expected = ranker(pins | {name: value[rows] for name, value in once.items()})
    feed = {name: value.numpy() for name, value in (pins | once).items()} | {REQUEST_ROW: rows.numpy()}
    for task, found in zip(("click", "like"), program.run(["click", "like"], feed), strict=True):
        np.testing.assert_allclose(found, expected[task].numpy(), atol=1e-5)


def test_export_refuses_a_form_that_says_something_else_than_the_trained_ranker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def different(self: PerRequestRanker, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return straight(self, {**given, "pin_dense": given["pin_dense"].flip(0)})

    straight = PerRequestRanker.forward
    monkeypatch.setattr(PerRequestRanker, "forward", different)
    with pytest.raises(ExportError, match=r"ranker.onnx must give its model's outputs within 1e-05"):
        export_ranker(Ranker(CONFIG).eval(), examples(), tmp_path / "ranker.onnx")
