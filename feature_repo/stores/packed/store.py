"""What a packed online store adds to Feast's interface: whole Arrow tables in, no protobuf object per value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
from feast import FeatureView, RepoConfig


@runtime_checkable
class PackedOnlineStore(Protocol):
    """An online store that takes a feature view's rows as one Arrow table."""

    def write_table(
        self,
        config: RepoConfig,
        view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None = None,
    ) -> int:
        """Write the rows of a view, order-safe: a row never replaces one with a newer event_timestamp.

        Everything is checked before the first row is written. Of rows with one entity key the newest wins.

        Args:
            table: Join keys, the view's features under the names of its fields, `event_timestamp`, and optionally
                `created_timestamp`; other columns are ignored.
            progress: Called with the number of rows that were handed to the store since the last call.

        Returns:
            Rows of the table that were written; older ones than the store held are not counted.

        Raises:
            PackedWriteError: The table cannot be stored as it is; nothing was written.
            OnlineStoreUnavailableError: The store failed on the way; writing the same table again repairs it.
        """
        ...
