"""What must hold of a catalogue at every moment, whatever was done or killed before."""

from __future__ import annotations

from collections.abc import Iterator

from feature_repo.versions import ReleaseState, VersionState, day_subject
from tests.feature_repo.catalogue.seen import Seen

READY = (VersionState.CANDIDATE, VersionState.LIVE, VersionState.SUPERSEDED)
KEPT = (ReleaseState.CANDIDATE, ReleaseState.LIVE, ReleaseState.SUPERSEDED)


def violations(seen: Seen) -> list[str]:
    """Every way in which a catalogue is not what it promises; empty when it is."""
    return [*_of_parts(seen), *_of_pointers(seen), *_of_what_is_given_up(seen), *_of_history(seen)]


def _of_parts(seen: Seen) -> Iterator[str]:
    """A release that may answer names ready versions, each in the space it was trained on, one of a model."""
    for release in seen.releases.values():
        if release.state not in KEPT:
            continue
        for key, space_id in release.versions.items():
            if seen.versions[key].state not in READY or seen.versions[key].space_id != space_id:
                yield f"{release.id} ({release.state}) names {seen.versions[key]}"
        models = [seen.versions[key].model for key in release.versions]
        if len(set(models)) != len(models):
            yield f"{release.id} reads two spaces of one model"


def _of_pointers(seen: Seen) -> Iterator[str]:
    """At most one release is live, the pointer names it, and just its versions are live."""
    pointers = seen.pointers
    live = [each.id for each in seen.releases.values() if each.state == ReleaseState.LIVE]
    if live != ([] if pointers.live is None else [pointers.live]):
        yield f"live are {live}, the pointer names {pointers.live}"
    named = set() if pointers.live is None else set(seen.releases[pointers.live].versions)
    if named != {key for key, each in seen.versions.items() if each.state == VersionState.LIVE}:
        yield f"the live release names {named}, which are not the live versions"
    if pointers.shadow is not None and seen.releases[pointers.shadow].state not in KEPT:
        yield f"the shadow {pointers.shadow} is {seen.releases[pointers.shadow].state}"
    changes = [each for each in seen.transitions if each.subject in ("pointers", "catalogue")]
    if pointers.revision != len(changes):
        yield f"revision {pointers.revision} follows {len(changes)} changes"


def _of_what_is_given_up(seen: Seen) -> Iterator[str]:
    """Nothing reads what is retired, but for a service that began to since; nothing at all reads what is pruned."""
    for version in seen.versions.values():
        consumers = seen.consumers.get(version.key, ())
        if version.state == VersionState.RETIRED:
            consumers = [each for each in consumers if each.kind != "service"]
        if version.state in (VersionState.RETIRED, VersionState.PRUNED) and consumers:
            yield f"{version.key} is {version.state} and read by {', '.join(map(str, consumers))}"
        if version.state not in (VersionState.RETIRED, VersionState.PRUNED) and version.served_through is not None:
            newer = seen.versions[version.served_through]
            if newer.state not in READY:
                yield f"{version.key} is served through {newer.key}, which is {newer.state}"


def _of_history(seen: Seen) -> Iterator[str]:
    """Transitions follow on each other, and end in the states that are stored."""
    states: dict[str, str | None] = {}
    live: str | None = None
    for each in seen.transitions:
        if each.subject == "catalogue":
            states, live = {}, None
        elif each.subject == "pointers":
            if each.before != live:
                yield f"transition {each.id} begins at {each.before}, live was {live}"
            live = each.after
        else:
            if states.get(each.subject) != each.before:
                yield f"transition {each.id} of {each.subject} begins at {each.before}, was {states.get(each.subject)}"
            states[each.subject] = each.after
    if live != seen.pointers.live or states != _stored(seen):
        yield f"transitions end in {live} and {states}, stored are {seen.pointers} and {_stored(seen)}"


def _stored(seen: Seen) -> dict[str, str | None]:
    return {
        **{f"version {key}": each.state.value for key, each in seen.versions.items()},
        **{f"release {name}": each.state.value for name, each in seen.releases.items()},
        **{day_subject(key, cutoff): state for (key, cutoff), state in seen.days.items()},
    }
