"""`headwater version show`: the manifest of an embedding version, its days, readers and past."""

from __future__ import annotations

import hashlib
import json
import re

from tests.integration.runs import headwater, refusal
from trainers.life.home import Home


def test_version_is_shown_with_everything_that_made_it(first_home: Home) -> None:
    lines = headwater("version", "show", "ctr_v1", "--run", first_home.run).stdout.splitlines()
    shown = [tuple(re.split(r"  +", line, maxsplit=1)) for line in lines]
    record = first_home.catalogue.version("ctr_v1")
    assert ("version", "ctr_v1, candidate") in shown
    assert ("space", f"{record.space_id}, {record.dim} wide, max age 72 h") in shown
    assert ("trained on", "2024-01-01 until 2024-01-08") in shown
    assert ("trained by", f"commit {record.commit}, seed 1") in shown
    assert ("alignment", "procrustes") in shown
    assert ("days", "6 visible, 2024-01-03 to 2024-01-08") in shown
    assert ("read by", "nothing") in shown
    assert shown[-1][1] == "candidate by run: all its days are online"


def test_version_as_json_has_the_digest_of_every_artifact_and_every_transition(first_home: Home) -> None:
    found = json.loads(headwater("version", "show", "ctr_v1", "--run", first_home.run, "--json").stdout)
    artifacts = found["version"]["artifacts"]
    assert "upstream/ctr_v1/checkpoint.safetensors" in artifacts
    for path, digest in artifacts.items():
        assert hashlib.sha256((first_home.run / path).read_bytes()).hexdigest() == digest
    moves = [each["after"] for each in found["transitions"] if each["before"] != each["after"]]
    assert moves == ["training", "backfilling", "candidate"]
    assert all(each["who"] == "run" and each["why"] and each["at"] for each in found["transitions"])
    assert [each["state"] for each in found["days"]] == ["visible"] * 6
    assert "coverage_user" in found["days"][-1]["gates"]


def test_unknown_version_is_refused_with_the_known_ones(first_home: Home) -> None:
    assert "version must be one of ctr_v1, cvr_v1 (got 'ctr_v9')" in refusal(
        "version", "show", "ctr_v9", "--run", first_home.run
    )
