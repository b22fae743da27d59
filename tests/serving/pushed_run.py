"""The tiny run with towers and a visible day of its live version, so that a server of it takes pushes.

A user's vector is (1, 0) where its segment is known and (0, 1) where it is not; a Pin's is (1, 0) for any price.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contract import write_atomically
from feature_repo.encoding import CategoricalInput, DenseInput, InputSpec
from feature_repo.push.towers import TowerProgram, TowersManifest, towers_folder
from feature_repo.release.files import sha256_of
from feature_repo.versions import Catalogue, DayRecord
from tests.serving.tiny_run import HEAD, NOW, SPACES

CUTOFF = NOW - timedelta(hours=2)
DELAY = timedelta(hours=1)
TOWERS = {
    "user": """user (int64[B, 1] user_categorical) => (float[B, 2] vector) {
        one = Constant<value_int = 1>() depth = Constant<value_int = 2>() values = Constant<value_floats = [0.0, 1.0]>()
        axes = Constant<value_ints = [1]>() index = Min(user_categorical, one) place = Sub(one, index)
        flat = Squeeze(place, axes)
        vector = OneHot(flat, depth, values) }""",
    "pin": """pin (float[B, 2] pin_dense) => (float[B, 2] vector) {
        zero = Constant<value_float = 0.0>() shift = Constant<value_floats = [1.0, 0.0]>()
        none = Mul(pin_dense, zero) vector = Add(none, shift) }""",
}
_SEGMENT = CategoricalInput(column="user_attributes__segment", vocabulary=("a", "b"))
_PRICE = DenseInput(column="pin_attributes__price", log=False, mean=0.0, scale=1.0)
ENCODERS = {
    "user": InputSpec(side="user", categorical=(_SEGMENT,)),
    "pin": InputSpec(side="pin", dense=(_PRICE,)),
}


def make_pushable(tiny_run: Path, run: Path) -> Path:
    """A copy of the tiny run that takes pushes; gives its folder."""
    shutil.copytree(tiny_run, run)
    catalogue = Catalogue.of_repo(run / "feature_repo")
    for version in SPACES:
        for state in ("generated", "checked", "visible"):
            day = DayRecord(key=f"ctr_v{version}", cutoff=CUTOFF, state=state)
            catalogue.put_day(day, who="a test", why="a test")
        _write_towers(run, version)
    moment = pa.timestamp("us", tz="UTC")
    for version in SPACES:
        for entity in TOWERS:
            folder = run / "feature_repo" / "data" / "offline" / f"{entity}_embedding_ctr_v{version}"
            folder.mkdir(parents=True)
            kinds = {f"{entity}_id": pa.int64(), "embedding": pa.list_(pa.float32()), "data_cutoff": moment}
            kinds |= {"event_timestamp": moment, "created_timestamp": moment}
            pq.write_table(pa.schema(list(kinds.items())).empty_table(), folder / f"date={CUTOFF:%Y-%m-%d}.parquet")
    return run


def _write_towers(run: Path, version: int) -> None:
    folder = towers_folder(run, f"ctr_v{version}", CUTOFF)
    folder.mkdir(parents=True)
    programs: dict[str, Any] = {}
    for side, text in TOWERS.items():
        file = folder / f"{side}_tower.onnx"
        onnx.save(onnx.parser.parse_model(HEAD + text), str(file))
        programs[side] = TowerProgram(file=file.name, sha256=sha256_of(file), encoder=ENCODERS[side])
    manifest = TowersManifest(
        version=f"ctr_v{version}",
        space_id=SPACES[version],
        dim=2,
        cutoff=CUTOFF,
        publish_delay_s=DELAY.total_seconds(),
        average_weight=0.8,
        alignment="none",
        **programs,
    )
    write_atomically(folder / "manifest.json", manifest.model_dump_json())
