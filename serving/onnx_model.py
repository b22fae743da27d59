"""An exported model as an ONNX Runtime session: named arrays in, one named array out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from feature_repo.encoding import Array
from feature_repo.release.manifest import ReleaseError
from serving.monitoring.request import stage


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxModel:
    """One loaded program; safe to call from many threads at once."""

    name: str
    """File that holds the program."""
    session: Any
    """`onnxruntime.InferenceSession`."""
    inputs: tuple[str, ...]
    """Names of the arrays that the program reads."""
    output: str
    """Name of the array that is returned."""

    def run(self, arrays: dict[str, Array]) -> Array:
        """The program's output, float32, batch first; arrays that the program does not read are ignored.

        Raises:
            ReleaseError: An array that the program reads is absent.
        """
        if absent := [name for name in self.inputs if name not in arrays]:
            raise ReleaseError(f"{self.name} reads {absent}, but the encoders make {sorted(arrays)}; export it again")
        feed = {name: arrays[name] for name in self.inputs}
        with stage("model"):
            (result,) = self.session.run([self.output], feed)
        return np.asarray(result, dtype=np.float32)


def load_model(path: Path, output: str, threads: int, sha256: str | None = None) -> OnnxModel:
    """Load one ONNX program.

    Args:
        sha256: Digest of the very bytes that are loaded; unchecked when not given.

    Raises:
        ReleaseError: The file changed, or the program has no output of that name.
    """
    program = path.read_bytes()
    if sha256 is not None and (got := hashlib.sha256(program).hexdigest()) != sha256:
        raise ReleaseError(f"{path} must have sha256 {sha256} (got {got}); restore it or create the release again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    outputs = [item.name for item in session.get_outputs()]
    if output not in outputs:
        raise ReleaseError(f"{path} must have an output {output!r} (got {outputs}); export the release again")
    inputs = tuple(item.name for item in session.get_inputs())
    return OnnxModel(name=path.name, session=session, inputs=inputs, output=output)
