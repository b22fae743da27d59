"""What an entity gets beyond what its surfaces explain, against numbers worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from feature_repo.contract import RepoManifest, activity_fields
from tests.data.activity_logs import CUTOFF, DAY, MANIFEST, Conversion, Impression, Log, build, config, days, row
from trainers.data.activity import ActivityConfig


def shown(number: int, user: int, surface: str, click: int, age_days: int = 1, pin: int = 10) -> Impression:
    """An impression some days before the cut-off."""
    at = CUTOFF - age_days * DAY
    return Impression(impression_id=number, at=at, user=user, pin=pin, surface=surface, click=click, like=None)


# Click rates are 1 of 4 at home and 2 of 4 in the feed.
LOG = Log(
    impressions=(
        shown(1, 1, "home", 1, 5),
        shown(2, 1, "home", 0, 3, pin=11),
        shown(3, 1, "feed", 1),
        shown(4, 2, "home", 0, 5),
        shown(5, 2, "home", 0, 2),
        shown(6, 2, "feed", 1, 2),
        shown(7, 2, "feed", 0),
        shown(8, 2, "feed", 0),
        shown(9, 2, "feed", 1, 0),
    ),
    conversions=(Conversion(impression_id=90, at=CUTOFF - DAY, user=3, pin=12),),
)


@pytest.fixture(scope="module", params=["from_scratch", "day_by_day"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ActivityConfig:
    found = config(tmp_path_factory.mktemp("surfaces"))
    LOG.write(found.event_log)
    build(found, [CUTOFF] if request.param == "from_scratch" else days(CUTOFF - 6 * DAY, 7))
    return found


@pytest.mark.parametrize(
    ("entity", "key", "expected"),
    [
        # At home 1 − 2 · ¼, in the feed 1 − 1 · ½, over 3 impressions and 20.
        ("user", 1, 1.0 / 23),
        # At home 0 − 2 · ¼, in the feed 1 − 3 · ½, over 5 and 20.
        ("user", 2, -1.0 / 25),
        # Only a conversion arrived.
        ("user", 3, 0.0),
        # At home 1 − 3 · ¼, in the feed 2 − 4 · ½, over 7 and 20.
        ("pin", 10, 0.25 / 27),
        # At home 0 − 1 · ¼, over 1 and 20.
        ("pin", 11, -0.25 / 21),
    ],
)
def test_excess_is_what_the_surfaces_do_not_explain(
    settings: ActivityConfig, entity: str, key: int, expected: float
) -> None:
    assert row(settings, entity, key)["click_excess_ever"] == pytest.approx(expected, rel=1e-12)


def test_excess_is_zero_where_a_label_was_never_defined(settings: ActivityConfig) -> None:
    assert row(settings, "user", 1)["like_excess_ever"] == 0.0


def test_excess_knows_nothing_of_the_day_that_begins(settings: ActivityConfig, tmp_path: Path) -> None:
    earlier = config(tmp_path)
    LOG.before(CUTOFF).write(earlier.event_log)
    build(earlier, [CUTOFF])
    assert row(earlier, "user", 2) == row(settings, "user", 2)


def test_manifest_without_surface_labels_has_none_of_it(tmp_path: Path) -> None:
    plain = config(tmp_path, manifest=replace(MANIFEST, surface_labels=()))
    LOG.write(plain.event_log)
    build(plain, [CUTOFF])
    assert not any("excess" in name for name in row(plain, "user", 1))
    assert not any("excess" in name for name in activity_fields(plain.manifest, "pin"))
    assert not list(plain.state.glob("surfaces_*"))


def test_manifest_written_before_surface_labels_is_read() -> None:
    text = replace(MANIFEST, surface_labels=()).to_json().replace('  "surface_labels": [],\n', "")
    assert "surface_labels" not in text
    assert RepoManifest.from_json(text).surface_labels == ()


def test_surface_labels_must_be_labels() -> None:
    with pytest.raises(ValueError, match=r"surface_labels must be among the labels .* \(got \['share'\]\)"):
        replace(MANIFEST, surface_labels=("click", "share"))
