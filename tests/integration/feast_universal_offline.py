"""The as-of offline store as Feast's own universal test suite makes its stores, from a checkout of Feast.

`AVAILABLE_OFFLINE_STORES` goes into the module that `FULL_REPO_CONFIGS_MODULE` names. The creators that Feast's suite
ships are importable only there, so this module is not collected by pytest and is imported with Feast's `tests` on the
path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_repo.stores.offline.asof_store import AsofOfflineStoreConfig

if TYPE_CHECKING:
    FileDataSourceCreator: Any = object
else:
    from tests.universal.feature_repos.universal.data_sources.file import FileDataSourceCreator


class AsofDataSourceCreator(FileDataSourceCreator):  # type: ignore[misc]
    """Sources that are single parquet files, as in Feast's own suite, read by our store."""

    def create_offline_store_config(self) -> AsofOfflineStoreConfig:
        """Small limits, so that the suite runs through them."""
        return AsofOfflineStoreConfig(memory_limit="1GB", threads=2)


AVAILABLE_OFFLINE_STORES = [("local", AsofDataSourceCreator)]
