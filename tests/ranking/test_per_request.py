"""A ranker that serves says what the trained one says, whichever requests its candidates are of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from feature_repo.encoding import REQUEST_ROW
from tests.modules.contract import BATCH
from tests.ranking.test_model import CONFIG, inputs
from trainers.modules.joined_vectors import JoinedVectorsConfig
from trainers.modules.side import SequenceInputs
from trainers.modules.vector_sequence import VectorSequenceConfig
from trainers.ranking.model import Ranker, RankerConfig
from trainers.ranking.per_request import PerRequestRanker, SplitLinear

WITH_SEQUENCE = replace(
    CONFIG,
    user=replace(CONFIG.user, sequences=(SequenceInputs(pins="user_id_0", length=3),), sequence_layers=1),
    sequence_buckets=7,
)


PAST = replace(
    CONFIG,
    past_vectors=("user_vector_1", "user_vector_2"),
    past=VectorSequenceConfig(length=2, vector_dim=2, token_dim=8, scale=1.0),
)
JOINED = replace(
    CONFIG,
    joined_vectors=("user_vector_1", "pin_vector_0"),
    joined=JoinedVectorsConfig(dims=(2, 3), token_dim=8, projection_dim=8),
)


def trained(config: RankerConfig) -> Ranker:
    """A ranker none of whose weights are what they begin with."""
    torch.manual_seed(0)
    ranker = Ranker(config).eval()
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return ranker


def asked() -> dict[str, Tensor]:
    """Inputs of a few rows with more vectors of the user, and sequences, of which one is empty."""
    sequences = torch.arange(BATCH)[:, None] * torch.tensor([[1, 1, 0]]) % 7
    vectors = {f"user_vector_{i}": inputs()["user_vector_0"].roll(i, 0) for i in (1, 2)}
    return inputs() | vectors | {"user_id_0": sequences}


@pytest.mark.parametrize("requests", [[0] * BATCH, list(range(BATCH)), [2, 0, 0, 1, *[2] * (BATCH - 4)]])
@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        WITH_SEQUENCE,
        replace(CONFIG, backbone="dhen"),
        replace(CONFIG, vector_pairs=()),
        replace(CONFIG, cross_rank=0),
        replace(CONFIG, cross_layers=1),
        PAST,
        replace(PAST, backbone="dhen"),
        JOINED,
    ],
    ids=["dcn", "sequence", "dhen", "without pairs", "full rank", "one cross", "past", "past, dhen", "joined"],
)
def test_logits_are_those_of_the_trained_ranker(config: RankerConfig, requests: list[int]) -> None:
    ranker, rows, given = trained(config), torch.tensor(requests), asked()
    of_pins = {name for name in given if name.startswith("pin_")}
    whole = {name: value if name in of_pins else value[rows] for name, value in given.items()}
    once = {name: value if name in of_pins else value[: int(rows.max()) + 1] for name, value in given.items()}
    with torch.inference_mode():
        expected = ranker(whole)
        found = PerRequestRanker(ranker).eval()(once | {REQUEST_ROW: rows})
    assert list(found) == list(expected) == list(config.tasks)
    for task, logits in expected.items():
        torch.testing.assert_close(found[task], logits, rtol=1e-5, atol=1e-5)


def test_split_linear_adds_the_products_of_both_sides() -> None:
    weight, bias = torch.tensor([[1.0, 10.0, 100.0]]), torch.tensor([0.5])
    layer = SplitLinear(weight, bias, torch.tensor([True, False, True]))
    request, candidate = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0], [6.0], [7.0]])
    found = layer(request, candidate, lambda values: values[[1, 0, 1]])
    assert found.tolist() == [[3 + 400 + 50 + 0.5], [1 + 200 + 60 + 0.5], [3 + 400 + 70 + 0.5]]
