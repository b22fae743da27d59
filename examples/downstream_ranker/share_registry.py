"""Run by the owner of the features after `headwater apply`: the registry as a file that stock Feast reads.

The registry of a run lies in a database that only Headwater's plugin reads, and its sources are folders relative to the
repo. The shared copy is Feast's own file, and names the same snapshots by absolute patterns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from feast import FeatureStore


def share(repo: Path, seen_at: Path | None = None) -> Path:
    """Write `data/registry.pb` of a feature repo in one step.

    Args:
        seen_at: Where consumers see the repo's folder, if elsewhere than here.
    """
    registry = FeatureStore(str(repo)).registry.proto()
    root = (seen_at or repo).resolve()
    sources = [view.spec.batch_source for view in registry.feature_views]
    # A view that can be pushed to has its snapshots behind the push source.
    pushed = [source.batch_source for source in registry.data_sources if source.HasField("batch_source")]
    pushed += [
        view.spec.stream_source.batch_source for view in registry.feature_views if view.spec.HasField("stream_source")
    ]
    for source in [*sources, *pushed, *registry.data_sources]:
        path = source.file_options.uri
        if path and not path.startswith("/"):
            source.file_options.uri = str(root / path / "*.parquet") if "." not in Path(path).name else str(root / path)
    target = repo / "data" / "registry.pb"
    partial = target.with_name(".registry.pb.partial")
    partial.write_bytes(registry.SerializeToString())
    partial.replace(target)
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("repo", type=Path, help="runs/<name>/feature_repo")
    parser.add_argument("--seen-at", type=Path, help="where consumers see that folder")
    given = parser.parse_args()
    print(share(given.repo, given.seen_at))
