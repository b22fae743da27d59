"""What tests of servers in trouble share."""

from __future__ import annotations

import pytest


@pytest.fixture
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-py tries to connect again for ten seconds, and we to find another server; here without a pause."""
    monkeypatch.setattr("redis.retry.sleep", lambda _: None)
    for name in ("_FIRST_PAUSE_S", "_READ_PATIENCE_S", "_WRITE_PATIENCE_S"):
        monkeypatch.setattr(f"feature_repo.stores.redis.pipeline.{name}", 0.0)
