"""The example of another team's project: plain Feast on a shared registry, with our packages out of reach."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from feast import FeatureStore

from tests.feature_repo.repos import hours
from tests.imports import ROOT

EXAMPLE = ROOT / "examples" / "downstream_ranker"
# An import of ours raises, as where nothing of ours is installed.
_ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(("feature_repo", "trainers", "serving")))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_ranker_learns_and_ranks_with_feast_alone(sqlite_store: FeatureStore, tmp_path: Path) -> None:
    owner, theirs = Path(sqlite_store.repo_path), tmp_path / "theirs"
    shutil.copytree(EXAMPLE, theirs)
    shared = runpy.run_path(str(EXAMPLE / "share_registry.py"))["share"](owner)
    (theirs / "feature_repo" / "data").symlink_to(shared.parent)
    rows = [(1, 10, 2, 1), (1, 11, 3, 0), (2, 10, 26, 1), (2, 11, 27, 0)]
    keys = ["user_id", "pin_id", "event_timestamp", "click"]
    impressions = pd.DataFrame([(user, pin, hours(hour), click) for user, pin, hour, click in rows], columns=keys)
    impressions.to_parquet(tmp_path / "impressions.parquet")
    asked = ["--impressions", str(tmp_path / "impressions.parquet"), "--user", "1", "--pins", "11", "10"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, "ranker.py", *asked], cwd=theirs, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"rows": 4, "training_roc_auc": 1.0, "ranked": [10, 11]}
