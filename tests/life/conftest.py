"""One trained run of a growing shop, copied by every test that changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from feast import FeatureStore

from tests.life.shop import Shop, moved, trained
from trainers.data import prepare
from trainers.life.home import Home


@pytest.fixture(scope="session", autouse=True)
def _link_stays() -> Iterator[None]:
    """A run points the top-level feature repo at itself; runs of tests must not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "select", lambda _repo_dir: False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_service_is_precomputed() -> Iterator[None]:
    """After each view Feast reads all services for those that it precomputes: none here, and half of a refresh."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureStore, "_precompute_affected_services", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def first_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shop at the end of its window; tests only read it."""
    return Shop.generate(tmp_path_factory.mktemp("first") / "shop")


@pytest.fixture(scope="session")
def first_home(first_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Its versions as candidates; tests only read them."""
    return trained(first_shop, tmp_path_factory.mktemp("first_run") / "run")


@pytest.fixture
def home_and_shop(first_home: Home, first_shop: Shop, tmp_path: Path) -> tuple[Home, Shop]:
    """A trained run and its shop, for one test alone."""
    return moved(first_home, first_shop, tmp_path)


@pytest.fixture(scope="session")
def copied(first_home: Home, first_shop: Shop) -> Callable[[Path], tuple[Home, Shop]]:
    """The same, as often as a test needs it."""
    return lambda folder: moved(first_home, first_shop, folder)
