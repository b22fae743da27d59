"""One model made of nearly every module, exported once, must answer in ONNX Runtime as it does in torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from trainers.modules.dhen import DHEN, DHENConfig
from trainers.modules.embedding import (
    FieldEmbedding,
    FieldEmbeddingConfig,
    SequenceEmbedding,
    SequenceEmbeddingConfig,
)
from trainers.modules.heads import TaskHeads, TaskHeadsConfig
from trainers.modules.mmoe import MMoE, MMoEConfig
from trainers.modules.normalize import l2_normalize
from trainers.modules.transformer import SequenceEncoder, SequenceEncoderConfig, TransformerConfig

DIM, LENGTH = 8, 5
INPUTS = ("a_dense", "a_categorical", "a_multi_0", "a_id_0", "a_vector_0", "pins", "actions", "surfaces", "ages")


class EveryModule(nn.Module):
    """Fields and a sequence with a target, through all four interaction modules, to two tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.fields = FieldEmbedding(
            FieldEmbeddingConfig(
                side="a",
                field_dim=DIM,
                num_dense=2,
                categorical_sizes=(3, 4),
                multi_sizes=(5,),
                id_buckets=(9,),
                vector_dims=(4,),
                id_dropout=0.5,
            )
        )
        self.pins = nn.Embedding(20, DIM)
        self.sequence = SequenceEmbedding(
            SequenceEmbeddingConfig(
                pin_dim=DIM, model_dim=DIM, max_length=LENGTH, num_actions=3, num_surfaces=4, use_ages=True
            )
        )
        layer = TransformerConfig(model_dim=DIM, num_heads=2, hidden_dim=16)
        self.encoder = SequenceEncoder(SequenceEncoderConfig(layer=layer, num_outputs=2, pooling="target"))
        self.dhen = DHEN(
            DHENConfig(
                num_fields=self.fields.config.num_fields + 2,
                field_dim=DIM,
                output_fields=3,
                layers=(("masknet", "transformer"), ("mlp", "dcn")),
                ensemble="concat",
                num_heads=2,
            )
        )
        self.mmoe = MMoE(MMoEConfig(input_dim=3 * DIM, tasks=("click", "like"), output_dim=4))
        self.heads = TaskHeads(TaskHeadsConfig(input_dim=4, tasks=("click", "like")))

    def forward(
        self,
        a_dense: Tensor,
        a_categorical: Tensor,
        a_multi_0: Tensor,
        a_id_0: Tensor,
        a_vector_0: Tensor,
        pins: Tensor,
        actions: Tensor,
        surfaces: Tensor,
        ages: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of both tasks and the normalised tokens."""
        given = (a_dense, a_categorical, a_multi_0, a_id_0, a_vector_0)
        tokens = self.fields(dict(zip(INPUTS, given, strict=False)))
        sequence, present = self.sequence(self.pins(pins), pins, actions, surfaces, ages)
        pooled = self.encoder(sequence, present, tokens[:, 0])
        flat = self.dhen(torch.cat([tokens, pooled], dim=1)).flatten(1)
        logits = self.heads(self.mmoe(flat))
        return logits["click"], logits["like"], l2_normalize(flat)


def example(batch: int) -> dict[str, Tensor]:
    """Inputs of `batch` rows; the first has an empty sequence and an empty list."""
    random = torch.Generator().manual_seed(batch)

    def indices(size: int, *shape: int) -> Tensor:
        return torch.randint(0, size, (batch, *shape), generator=random)

    lengths = indices(LENGTH + 1, 1)
    lengths[0] = 0
    present = torch.arange(LENGTH) < lengths
    lists = indices(5, 3)
    lists[0] = 0
    return {
        "a_dense": torch.randn(batch, 4, generator=random),
        "a_categorical": indices(3, 2),
        "a_multi_0": lists,
        "a_id_0": indices(9),
        "a_vector_0": torch.randn(batch, 5, generator=random),
        "pins": (indices(19, LENGTH) + 1) * present,
        "actions": indices(8, LENGTH) * present,
        "surfaces": indices(4, LENGTH) * present,
        "ages": torch.randn(batch, LENGTH, generator=random) * present,
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = EveryModule().eval()
    path = tmp_path_factory.mktemp("onnx") / "every_module.onnx"
    sizes = {name: {0: torch.export.Dim("batch", min=1)} for name in INPUTS}
    program = torch.onnx.export(
        model, (), kwargs=example(3), dynamo=True, dynamic_shapes=sizes, input_names=INPUTS, verbose=False
    )
    assert program is not None
    program.save(path)
    return model, path


@pytest.mark.parametrize("batch", [1, 2, 17])
def test_exported_model_answers_like_the_module_for_any_batch(exported: tuple[nn.Module, Path], batch: int) -> None:
    model, path = exported
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = example(batch)
    answers = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.inference_mode():
        expected = model(**inputs)
    for answer, tensor in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer, tensor.numpy(), atol=1e-5, rtol=1e-4)
