"""Who reads an embedding version or a release."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import Connection, delete, insert, select

from feature_repo.catalogue.errors import InUseError
from feature_repo.catalogue.records import Consumer, ReleaseState, VersionState
from feature_repo.catalogue.tables import pointers, release_versions, releases, services, split, versions

IN_USE_RELEASES = (ReleaseState.CANDIDATE, ReleaseState.LIVE, ReleaseState.SUPERSEDED)
"""States in which a release keeps its versions and its folder."""


def consumers_of(connection: Connection, key: str) -> list[Consumer]:
    """Everything that reads a version: releases, services of teams, older versions served through it."""
    return consumers_by_version(connection).get(key, [])


def consumers_by_version(connection: Connection) -> dict[str, list[Consumer]]:
    """Consumers of each version that has any."""
    found: dict[str, list[Consumer]] = {}
    for key, consumer in _consumers(connection):
        found.setdefault(key, []).append(consumer)
    return found


def _consumers(connection: Connection) -> Iterator[tuple[str, Consumer]]:
    in_releases = (
        select(release_versions.c.key, releases.c.id, releases.c.state)
        .join(releases, release_versions.c.release == releases.c.id)
        .where(releases.c.state.in_([state.value for state in IN_USE_RELEASES]))
        .order_by(releases.c.id)
    )
    for key, release, state in connection.execute(in_releases):
        yield key, Consumer(kind="release", name=release, detail=state)
    for service, key in connection.execute(select(services).order_by(services.c.service)):
        yield key, Consumer(kind="service", name=service, detail=f"reads {key}")
    served = (
        select(versions.c.served_through, versions.c.key, versions.c.state)
        .where(versions.c.served_through.is_not(None))
        .where(versions.c.state.not_in([VersionState.RETIRED.value, VersionState.PRUNED.value]))
        .order_by(versions.c.key)
    )
    for key, older, state in connection.execute(served):
        yield key, Consumer(kind="version", name=older, detail=f"{state}, served through {key}")


def consumers_of_release(connection: Connection, release: str) -> list[Consumer]:
    """The pointers that name a release."""
    row = connection.execute(select(pointers.c.live, pointers.c.shadow)).one()
    tried = connection.execute(select(split.c.release)).scalar_one_or_none()
    found = {"live": row.live, "shadow": row.shadow, "split": tried}
    return [Consumer(kind="pointer", name=name, detail=release) for name, named in found.items() if named == release]


def refuse_in_use(subject: str, becoming: str, consumers: Iterable[Consumer]) -> None:
    """Refuse to retire or prune what is read.

    Raises:
        InUseError: With every consumer.
    """
    found = list(consumers)
    if found:
        listed = "; ".join(str(each) for each in found)
        raise InUseError(
            f"{subject} must have no consumers to be {becoming} (got {len(found)}: {listed}); move them first", found
        )


def of_teams(services: Mapping[str, Iterable[str]], generated: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Versions that the services of teams' own read, those that read any."""
    own = set(generated)
    reads = {service: tuple(sorted(set(keys))) for service, keys in sorted(services.items()) if service not in own}
    return {service: keys for service, keys in reads.items() if keys}


def recorded_services(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Versions that each recorded service reads."""
    found: dict[str, tuple[str, ...]] = {}
    for service, key in connection.execute(select(services).order_by(services.c.service, services.c.key)):
        found[service] = (*found.get(service, ()), key)
    return found


def record_consumers(connection: Connection, reads: Mapping[str, Iterable[str]]) -> None:
    """Replace what is known of the services of teams' own."""
    rows = [{"service": service, "key": key} for service, keys in reads.items() for key in keys]
    connection.execute(delete(services))
    if rows:
        connection.execute(insert(services), rows)
