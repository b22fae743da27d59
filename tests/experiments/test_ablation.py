"""The ablation experiment: its cases, and what each row is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.experiments.small_run import nothing, turned
from trainers.experiments import ablation, walks
from trainers.experiments.ablation import AS_IT_IS, Case, _Ablation
from trainers.experiments.setting import Setting
from trainers.experiments.walks import WalkRequest
from trainers.upstream.frame import Frame

CASES = (Case(part="whole", case=AS_IT_IS), Case(part="contrastive loss", case="left out"))


@pytest.fixture(scope="module")
def rows(opened: Setting) -> Iterator[dict[tuple[str, str, bool], dict[str, Any]]]:
    """The table of two cases by part and case, the run's own vectors in the place of both models'."""

    def days(_: object, request: WalkRequest) -> Iterator[tuple[datetime, Frame]]:
        del request
        yield from turned(opened)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walks.Walks, "run", nothing)
        patch.setattr(walks.Walks, "days", days)
        patch.setattr(_Ablation, "cases", lambda _: iter(CASES))
        patch.setattr(ablation, "PROJECTIONS", (0, 16))
        yield {(row["part"], row["case"], "recall_at_20" in row): row for row in ablation.run(opened)}


def test_cases_change_one_part_of_the_model_each(opened: Setting) -> None:
    cases = list(_Ablation(opened, opened.work("ablation")).cases())
    assert [(each.part, each.case) for each in cases] == [
        ("whole", AS_IT_IS),
        ("contrastive loss", "left out"),
        ("DHEN layers", "masknet"),
        ("embedding width", "8"),
        ("embedding width", "32"),
    ]
    assert len({each.key for each in cases}) == len(cases)
    recipes = [_Ablation(opened, opened.work("ablation"))._walk(each).recipe for each in cases]
    assert recipes[1].contrastive_weight == 0.0
    assert recipes[2].tower_layers == recipes[2].interaction_layers == (("masknet",),)
    assert [recipe.embedding_dim for recipe in recipes] == [16, 16, 16, 8, 32]


def test_walk_of_a_case_may_learn_one_task_and_skip_the_histories(opened: Setting) -> None:
    found = _Ablation(opened, opened.work("ablation"))
    walk = found._walk(Case(part="tasks", case="click alone", tasks=("click",), history_share=0.0))
    assert (walk.tasks, walk.history_share, walk.name) == (("click",), 0.0, "ablation_tasks_click_alone")


def test_table_compares_each_case_with_the_whole_and_each_projection_with_a_token_each(
    rows: dict[tuple[str, str, bool], dict[str, Any]],
) -> None:
    assert list(rows) == [
        ("vectors", "none", False),
        ("whole", AS_IT_IS, False),
        ("contrastive loss", "left out", False),
        ("projection of the vectors", "a token each", False),
        ("projection of the vectors", "not projected", False),
        ("projection of the vectors", "16 wide, together", False),
        ("whole", AS_IT_IS, True),
        ("contrastive loss", "left out", True),
    ]
    for (part, case, is_recall), row in rows.items():
        if is_recall:
            assert ("change_to_whole_pct" in row) == (case == "left out")
            continue
        assert ("lift_pct" in row) == (part != "vectors")
        assert ("change_to_whole_pct" in row) == (case in ("left out", "not projected", "16 wide, together"))
        assert ("cpu_seconds" in row) == (part == "projection of the vectors")


def test_the_same_vectors_are_no_change(rows: dict[tuple[str, str, bool], dict[str, Any]]) -> None:
    assert rows["contrastive loss", "left out", False]["change_to_whole_pct"] == 0.0
    assert rows["contrastive loss", "left out", True]["change_to_whole_pct"] == 0.0
