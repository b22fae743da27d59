"""The life of a version with the catalogue in PostgreSQL: the same commands, and two operators at once."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from feature_repo.versions import Catalogue
from tests.feature_repo.catalogue.invariants import violations
from tests.feature_repo.catalogue.postgres_server import running, why_absent
from tests.feature_repo.catalogue.seen import look
from tests.life.system.shop import write_shop
from tests.life.system.workshop import Done, Workshop

DSN = "HEADWATER_CATALOGUE_URL"
TRAINING = 60
"""Moment of a refresh at which its day is under way."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that lives as long as the test."""
    reason = why_absent() or (None if find_spec("psycopg") else "psycopg must be installed (extra `postgres`)")
    if reason is not None:
        pytest.skip(reason)
    with running() as found:
        yield found.render_as_string(hide_password=False)


@pytest.mark.slow
def test_catalogue_in_postgresql_lets_an_operator_promote_while_a_refresh_runs(
    workshop: Workshop, tmp_path: Path, url: str
) -> None:
    run, environment = tmp_path / "run", {DSN: url}
    shop = write_shop(tmp_path / "shop")

    def headwater(*arguments: str, who: str = "alice") -> Done:
        done = workshop.command(run, *arguments, who=who, environment=environment)
        assert done.code == 0, done.err
        return done

    workshop.called(run, "make_run", {"shop": str(shop)}, environment=environment)
    headwater("version", "create", "--model", "ctr", "--compatible-with", "ctr_v1", "-q")
    workshop.called(run, "write_parts", {"folder": str(tmp_path / "parts"), "key": "ctr_v2"}, environment=environment)
    made = headwater("release", "create", str(tmp_path / "parts"), "--why", "v2", "--json").json["release"]

    promote = workshop.request(run, ("release", "promote", made, "--why", "v2"), "bob", environment=environment)
    asked = {"pause": TRAINING, "meanwhile": promote, "environment": environment}
    refreshed = workshop.command(run, "refresh", "--as-of", "2024-01-08", "--quiet", **asked)
    assert refreshed.meanwhile is not None
    assert (refreshed.code, refreshed.meanwhile.code) == (0, 0), refreshed
    catalogue = Catalogue(url)
    (of_the_day,) = [each for each in catalogue.releases() if each.made_by == "refresh"]
    assert (of_the_day.parent, of_the_day.state) == (made, "live")
    assert [each.who.partition("@")[0] for each in catalogue.transitions(f"release {made}")] == [
        "alice",
        "bob",
        "refresh",
    ]
    assert violations(look(catalogue)) == []

    given_up = [each.id for each in catalogue.releases() if "ctr_v1" in each.versions]
    headwater("release", "retire", *given_up, "ctr_v1", "--why", "old")
    headwater("release", "prune", "--why", "old")
    assert catalogue.version("ctr_v1").state == "pruned"
    assert not (run / "upstream" / "ctr_v1").exists()
    assert violations(look(catalogue)) == []
