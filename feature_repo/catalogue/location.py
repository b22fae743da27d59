"""Where a feature repo's catalogue lies: in the database of its registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import yaml
from sqlalchemy.engine import URL, make_url

from feature_repo.catalogue.errors import CatalogueError

URL_VARIABLE: Final = "HEADWATER_CATALOGUE_URL"
"""Environment variable that names another database; one database or schema holds one catalogue."""
_OWN_REGISTRY: Final = "feature_repo.stores.sqlite.registry.SqliteRegistryStore"
_DEFAULT: Final = {"registry_store_type": _OWN_REGISTRY, "path": "data/registry.db"}


def url_of_repo(repo_dir: Path) -> str | URL:
    """SQLAlchemy URL of the catalogue of the feature repo in `repo_dir`.

    Read from `feature_store.yaml` as Feast reads it, environment variables put in; Feast itself is not imported.

    Raises:
        CatalogueError: The registry is neither our SQLite one nor an SQL one, and the variable is not set.
    """
    if given := os.environ.get(URL_VARIABLE):
        return given
    registry = _registry(repo_dir / "feature_store.yaml")
    path = str(registry.get("path", ""))
    if registry.get("registry_type") == "sql":
        return path
    if registry.get("registry_store_type") == _OWN_REGISTRY and path:
        return URL.create("sqlite", database=str((repo_dir / path).absolute()))
    raise CatalogueError(
        f"the registry of {repo_dir} must be {_OWN_REGISTRY} or of registry_type sql to hold the catalogue too "
        f"(got {registry.get('registry_store_type') or registry.get('registry_type', 'file')!r}); "
        f"name a database in {URL_VARIABLE}"
    )


def is_inside(url: str | URL, repo_dir: Path) -> bool:
    """Whether the database is a file of the feature repo, which no other repo can share."""
    database = make_url(url).database
    sqlite = make_url(url).get_backend_name() == "sqlite" and database is not None
    return sqlite and Path(str(database)).absolute().is_relative_to(repo_dir.absolute())


def _registry(settings: Path) -> dict[str, Any]:
    if not settings.is_file():
        return dict(_DEFAULT)
    registry = (yaml.safe_load(os.path.expandvars(settings.read_text())) or {}).get("registry", {})
    return {"path": registry} if isinstance(registry, str) else dict(registry)
