"""Which versions a release is trained on when some are named."""

from __future__ import annotations

import pytest

from trainers.life.trainable import completed


@pytest.mark.parametrize(
    ("named", "live", "expected"),
    [
        ({"ctr": "ctr_v2"}, {"ctr": "ctr_v1", "cvr": "cvr_v1"}, {"ctr": "ctr_v2", "cvr": "cvr_v1"}),
        ({"unified": "unified_v1"}, {"ctr": "ctr_v1", "cvr": "cvr_v1"}, {"unified": "unified_v1"}),
        ({"cvr": "cvr_v1"}, {"unified": "unified_v1"}, {"cvr": "cvr_v1", "unified": "unified_v1"}),
        ({"ctr": "ctr_v2", "unified": "unified_v1"}, {"cvr": "cvr_v1"}, {"ctr": "ctr_v2", "unified": "unified_v1"}),
        ({"ctr": "ctr_v2"}, {}, {"ctr": "ctr_v2"}),
    ],
)
def test_named_versions_are_completed_by_those_of_domains_that_they_do_not_know(
    named: dict[str, str], live: dict[str, str], expected: dict[str, str]
) -> None:
    assert completed(named, live) == expected
