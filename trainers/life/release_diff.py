"""What differs between two releases, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from feature_repo.encoding import InputSpec
from feature_repo.release.manifest import ReleaseManifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One thing that another release has otherwise."""

    part: str
    """What it is, such as `version ctr_v1` or `pctr.onnx`."""
    before: str
    """In the first release; empty where it has none."""
    after: str
    """In the second; empty where it has none."""


def changes(before: ReleaseManifest, after: ReleaseManifest) -> list[Change]:
    """Everything that the second release has otherwise: versions and spaces, models, inputs, index, figures, origin."""
    return [
        *_of_maps("version", before.spaces(), after.spaces()),
        *_of_maps("service", before.services.model_dump(), after.services.model_dump()),
        *_of_maps("", _files(before), _files(after)),
        *_of_encoders(before, after),
        *_of_maps("calibration", _calibrations(before), _calibrations(after)),
        *_of_maps("index", _index(before), _index(after)),
        *_of_maps("popular Pins of", _popular(before), _popular(after)),
        *_of_maps("figure", _figures(before), _figures(after)),
        *_of_maps("", _origin(before), _origin(after)),
    ]


def _of_maps(kind: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name, ""), after.get(name, "")
        if old != new:
            yield Change(part=f"{kind} {name}".strip(), before=old, after=new)


def _files(manifest: ReleaseManifest) -> dict[str, str]:
    return {name: digest[:12] for name, digest in sorted(manifest.sha256.items())}


def _of_encoders(before: ReleaseManifest, after: ReleaseManifest) -> Iterator[Change]:
    for (name, old), (_, new) in zip(before.encoders, after.encoders, strict=True):
        if old != new:
            lost, won = set(old.columns()) - set(new.columns()), set(new.columns()) - set(old.columns())
            fitted = "fitted anew" if not (lost or won) else ""
            label = f"encoder {name.replace('_', '.')}"
            yield Change(part=label, before=_listed(old, lost), after=_listed(new, won, fitted))


def _listed(spec: InputSpec, own: set[str], note: str = "") -> str:
    columns = f"{len(spec.columns())} columns"
    return ", ".join(part for part in (columns, note, " ".join(sorted(own))) if part)


def _calibrations(manifest: ReleaseManifest) -> dict[str, str]:
    rankers = {"pctr": manifest.rankers.pctr, "pcvr": manifest.rankers.pcvr}
    return {
        f"{name} on {surface}": f"{slope:.4g} x + {intercept:.4g}"
        for name, ranker in rankers.items()
        if ranker is not None
        for surface, (slope, intercept) in sorted(ranker.calibration.items())
    }


def _index(manifest: ReleaseManifest) -> dict[str, str]:
    retrieval = manifest.retrieval
    prior = f"{retrieval.prior.days} days, weight {retrieval.prior.weight:g}"
    return {"Pins": str(retrieval.num_pins), "width": str(retrieval.dim), "popularity": prior}


def _popular(manifest: ReleaseManifest) -> dict[str, str]:
    return {surface: " ".join(map(str, pins[:5])) for surface, pins in sorted(manifest.popular.items())}


def _figures(manifest: ReleaseManifest) -> dict[str, str]:
    return {name: f"{value:.4f}" for name, value in manifest.figures.items()}


def _origin(manifest: ReleaseManifest) -> dict[str, Any]:
    return {
        "data cut-off": f"{manifest.data_cutoff:%Y-%m-%d %H:%M}",
        "parent": manifest.parent or "",
        "commit": manifest.commit,
        "seed": str(manifest.seed),
    }
