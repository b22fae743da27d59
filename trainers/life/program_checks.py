"""Whether the programs and the index of a release fit its encoders and its embedding versions, found by running them.

Dims: B rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnxruntime

from feature_repo.contract import EMBEDDING_FIELD, embedding_view, feature_reference
from feature_repo.encoding import REQUEST_ROW, InputSpec, blank
from feature_repo.release.manifest import ReleaseManifest

NUM_ROWS = 2
"""Rows that every program is tried with; nothing is known of them."""


def program_problems(folder: Path, manifest: ReleaseManifest) -> list[str]:
    """What keeps the files from working together; none when all agree."""
    retrieval, encoders = manifest.retrieval, manifest.encoders
    ranking = (encoders.ranking_user, encoders.ranking_pin, encoders.ranking_context)
    found = [*_encoder_problems(manifest), *_index_problems(folder, manifest)]
    found += _problems(folder / retrieval.model, retrieval.output, [encoders.query_user], (NUM_ROWS, retrieval.dim))
    width = (NUM_ROWS, retrieval.dim - 1)
    found += _problems(folder / retrieval.candidate_model, retrieval.candidate_output, [encoders.candidate_pin], width)
    for ranker in (manifest.rankers.pctr, manifest.rankers.pcvr):
        if ranker is not None:
            found += _problems(folder / ranker.model, ranker.output, ranking, (NUM_ROWS,))
    return found


def _problems(file: Path, output: str, specs: Sequence[InputSpec], shape: tuple[int, ...]) -> Iterator[str]:
    """What is wrong with one program: its inputs, its output's name, or its output's shape."""
    made = {name: values for spec in specs for name, values in blank(spec, NUM_ROWS).items()}
    # A ranker reads several sides, and may ask which request each of its candidates is of.
    given = made | {REQUEST_ROW: np.arange(NUM_ROWS)} if len(specs) > 1 else made
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        inputs, outputs = ([item.name for item in items] for items in (session.get_inputs(), session.get_outputs()))
        if absent := sorted(set(inputs) - set(given)):
            yield f"{file.name} reads {absent}, and its encoders make {sorted(made)}"
        elif output not in outputs:
            yield f"{file.name} has outputs {outputs}, not {output!r}"
        else:
            (result,) = session.run([output], {name: given[name] for name in inputs})
            yield from _shape_problems(file, output, result, shape)
    except Exception as error:
        # ONNX Runtime's exceptions have no type in common; each says what does not fit.
        yield f"{file.name} cannot be run with what its encoders make ({str(error).strip()})"


def _shape_problems(file: Path, output: str, result: Any, shape: tuple[int, ...]) -> Iterator[str]:
    got = result.reshape(-1).shape if len(shape) == 1 else result.shape
    if got != shape:
        yield f"{file.name} gives {output!r} of shape {result.shape} for {NUM_ROWS} rows, not {shape}"
    elif not np.isfinite(result).all():
        yield f"{file.name} gives {output!r} that is not finite for rows of which nothing is known"


def _index_problems(folder: Path, manifest: ReleaseManifest) -> Iterator[str]:
    retrieval = manifest.retrieval
    try:
        index = faiss.read_index(str(folder / retrieval.index), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        yield f"{retrieval.index} is no faiss index ({error})"
        return
    if (index.d, index.ntotal) != (retrieval.dim, retrieval.num_pins):
        got = f"{index.ntotal} vectors of width {index.d}"
        yield f"{retrieval.index} holds {got}, not {retrieval.num_pins} of width {retrieval.dim}"


def _encoder_problems(manifest: ReleaseManifest) -> Iterator[str]:
    """Encoders that read vectors of a version that the release does not name, or of another width."""
    dims = {
        feature_reference(embedding_view(entity, version.model, version.version), EMBEDDING_FIELD): version.dim
        for version in manifest.embeddings
        for entity in ("user", "pin")
    }
    for name, spec in manifest.encoders:
        for item in spec.vectors:
            if "_embedding_" in item.column and item.column.endswith(f"__{EMBEDDING_FIELD}"):
                if item.column not in dims:
                    yield f"encoder {name} reads {item.column}, which is of none of {sorted(manifest.spaces())}"
                elif item.dim != dims[item.column]:
                    yield f"encoder {name} reads {item.column} {item.dim} wide, not {dims[item.column]}"
