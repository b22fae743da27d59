"""Creating the Feast repo of a run, applying it, and pointing the top-level repo at it."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contract import MANIFEST_FILE, RepoManifest, write_atomically

if TYPE_CHECKING:
    from feast import FeatureStore

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
EMBEDDED = "embedded"
_STATE_WITHOUT_A_RUN = ("registry.db", "online_store.db")


def profile_path(profile: str) -> Path:
    """Configuration file of a profile: `embedded`, or a file of `profiles/` without its suffix.

    Raises:
        ValueError: There is no such profile.
    """
    known = {EMBEDDED: PACKAGE / "feature_store.yaml"}
    known |= {path.stem: path for path in sorted((PACKAGE / "profiles").glob("*.yaml"))}
    if profile not in known:
        raise ValueError(f"profile must be one of {', '.join(known)} (got {profile!r})")
    return known[profile]


def create_repo(repo_dir: Path, manifest: RepoManifest, profile: str = EMBEDDED) -> None:
    """Write a run's Feast repo: configuration, definitions, manifest. Safe to repeat; the state in `data/` stays."""
    write_atomically(repo_dir / "feature_store.yaml", profile_path(profile).read_text())
    write_atomically(repo_dir / "definitions.py", (PACKAGE / "definitions.py").read_text())
    write_atomically(repo_dir / "data" / MANIFEST_FILE, manifest.to_json())


def open_store(repo_dir: Path) -> FeatureStore:
    """Feast's own client of a repo.

    Raises:
        FileNotFoundError: `repo_dir` is no feature repo.
    """
    from feast import FeatureStore

    if not (repo_dir / "feature_store.yaml").is_file():
        raise FileNotFoundError(f"{repo_dir} must hold feature_store.yaml (got none); run `headwater apply` first")
    return FeatureStore(repo_path=str(repo_dir.resolve()))


def apply(repo_dir: Path) -> None:
    """Register exactly what the repo's manifest declares; what it declares no longer goes, with its online rows."""
    from feature_repo.declarations import load

    objects, store = load(repo_dir / "data"), open_store(repo_dir)
    gone = [each for each in (*store.list_feature_views(), *store.list_feature_services()) if each.name not in objects]
    declared = (getattr(view, name, None) for view in objects.values() for name in ("batch_source", "stream_source"))
    sources = {source.name for source in declared if source is not None}
    gone += [source for source in store.list_data_sources() if source.name not in sources]
    store.apply(list(objects.values()), objects_to_delete=gone, partial=False)
    logger.info("applied repo=%s objects=%d removed=%d", repo_dir, len(objects), len(gone))


def forget(repo_dir: Path) -> None:
    """Unregister everything and drop all online rows; offline files stay.

    Feast keeps with each view the periods that it has materialized, and an incremental materialization begins after
    them: they must go when the rows go.
    """
    open_store(repo_dir).teardown()


def select(repo_dir: Path, package_dir: Path | None = None) -> bool:
    """Point the top-level repo's `data` link at a run, in one step.

    Returns:
        Whether the link was set. It is not where the package folder cannot be written, or where `data` is a folder
        with someone's own state.
    """
    link = (package_dir or PACKAGE) / "data"
    try:
        if not _make_room(link):
            logger.warning("link_kept path=%s reason=folder_with_own_data", link)
            return False
        partial = link.with_name(f".{link.name}.{os.getpid()}.partial")
        partial.unlink(missing_ok=True)
        partial.symlink_to((repo_dir / "data").resolve(), target_is_directory=True)
        partial.replace(link)
    except OSError as error:
        logger.warning("link_kept path=%s reason=%r", link, str(error))
        return False
    logger.info("selected repo=%s link=%s", repo_dir, link)
    return True


def _make_room(link: Path) -> bool:
    """Whether `link` can be replaced: `feast apply` in a fresh clone leaves a folder with two empty databases."""
    if link.is_symlink() or not link.exists():
        return True
    if not link.is_dir() or any(not item.name.startswith(_STATE_WITHOUT_A_RUN) for item in link.iterdir()):
        return False
    shutil.rmtree(link)
    return True
