"""Answers as `/docs` shows them. Tests hold each against its model."""

from __future__ import annotations

from typing import Any

RANKING_TERMS: dict[str, Any] = {
    "context": {"moment": "2026-01-10T18:30:00Z"},
    "filters": [{"feature": "pin_attributes:department", "any_of": ["GROCERY", "PRODUCE"]}],
    "bids": {"per": "conversion", "pins": [{"pin_id": 14, "bid": 2.5}], "default": 1.0},
    "diversify": {"feature": "pin_attributes:department", "at_most": 3},
}
_ORIGIN = {"release": "r-1b9ce17ad233", "embeddings": ["ctr_v1"], "as_of": "2026-01-10T18:00:00Z"}
_STATUS = {"user_activity": "present", "user_attributes": "present", "user_embedding_ctr_v1": "present"}
_USER = {"user_id": 712, "status": _STATUS}
_PIN = {"pin_id": 14, "title": "Rye bread", "pctr": 0.21, "pcvr": 0.08}
_RANKING = {
    **_ORIGIN,
    "split": {"name": "wider-towers", "arm": "control"},
    "user": _USER,
    "degraded": None,
    "ranked": [{**_PIN, "score": 0.21, "expected_value": None}],
}
RANK_ANSWER: dict[str, Any] = {**_RANKING, "filtered": 0, "missing": [15]}
RECOMMEND_ANSWER: dict[str, Any] = {
    **_RANKING,
    "source": "retrieval",
    "cold_start": False,
    "k_available": 499,
    "filtered": 0,
    "missing": {"unknown": 1, "views": {"pin_activity": {"outside_max_age": 12}}},
}
DEGRADED_ANSWER: dict[str, Any] = {
    **RECOMMEND_ANSWER,
    "user": {"user_id": 712, "status": {}},
    "degraded": {"reason": "store_timeout", "lacks": "user_features"},
    "ranked": [
        {"pin_id": 3, "title": None, "score": None, "pctr": None, "pcvr": None, "expected_value": None},
    ],
    "source": "popular",
    "k_available": 200,
    "missing": {"unknown": 0, "views": {}},
}
RETRIEVE_ANSWER: dict[str, Any] = {
    **_ORIGIN,
    "split": None,
    "user": _USER,
    "degraded": None,
    "source": "retrieval",
    "cold_start": False,
    "pins": [{"pin_id": 14, "score": 0.83}],
}
SIMILAR_ANSWER: dict[str, Any] = {
    **_ORIGIN,
    "degraded": None,
    "pins": [{"pin_id": 92, "title": "Oat bread", "similarity": 0.94}],
}
_VIEW = {"status": "present", "event_timestamp": "2026-01-10T01:00:00Z", "values": {"impressions_ever": 41}}
FEATURES_ANSWER: dict[str, Any] = {**_ORIGIN, "results": [{"id": 712, "views": {"user_activity": _VIEW}}]}


PUSH_ANSWER: dict[str, Any] = {
    "entity": "user",
    "rows": 1,
    "event_timestamp": "2026-01-10T18:00:00Z",
    "attributes": 1,
    "versions": [
        {
            "version": "ctr_v1",
            "view": "user_embedding_ctr_v1",
            "space_id": "5f2c0d9a7b31",
            "towers": "2026-01-10T00:00:00Z",
            "continued": 0,
            "newer_kept": 0,
            "unseen": {},
        }
    ],
    "seconds": 0.021,
}
RELEASES_ANSWER: dict[str, Any] = {
    "live": "r-1b9ce17ad233",
    "shadow": None,
    "shadow_share": 0.0,
    "split": {"name": "wider-towers", "release": "r-77ab0c3ef019", "share": 0.1, "holdout": 0.1},
    "loaded": "r-1b9ce17ad233",
    "refused": None,
    "releases": [
        {
            "id": "r-1b9ce17ad233",
            "state": "live",
            "spaces": {"ctr_v1": "5f2c0d9a7b31"},
            "parent": None,
            "made_by": "evaluate",
            "data_cutoff": "2026-01-10T00:00:00Z",
            "created": "2026-01-10T01:12:00Z",
        }
    ],
}
SPLIT_ANSWER: dict[str, Any] = {
    "split": {"name": "wider-towers", "release": "r-77ab0c3ef019", "share": 0.1, "holdout": 0.1},
    "revision": 8,
}
POINTERS_ANSWER: dict[str, Any] = {"live": "r-1b9ce17ad233", "revision": 7}
ALIVE_ANSWER: dict[str, Any] = {"status": "alive"}
READY_ANSWER: dict[str, Any] = {
    "status": "ready",
    **_ORIGIN,
    "num_pins": 7538,
    "shadow": None,
    "split": None,
    "warnings": [],
}


ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/recommend": {"all": RECOMMEND_ANSWER, "degraded": DEGRADED_ANSWER},
    "/v1/retrieve": {"all": RETRIEVE_ANSWER},
    "/v1/rank": {"all": RANK_ANSWER},
    "/v1/similar": {"all": SIMILAR_ANSWER},
    "/v1/features": {"all": FEATURES_ANSWER},
    "/v1/push": {"all": PUSH_ANSWER},
    "/v1/releases": {"all": RELEASES_ANSWER},
    "/v1/releases/{id}/promote": {"all": POINTERS_ANSWER},
    "/v1/releases/rollback": {"all": POINTERS_ANSWER},
    "/v1/releases/{id}/split": {"all": SPLIT_ANSWER},
    "/v1/releases/split/end": {"all": {"split": None, "revision": 9}},
    "/healthz": {"all": ALIVE_ANSWER},
    "/readyz": {"all": READY_ANSWER},
}
"""Answers with status 200, by route and name."""


def with_answers(document: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI document with the answers in it; FastAPI would leave out what is null in them."""
    for path, answers in ANSWERS.items():
        for route in document["paths"][path].values():
            content = route["responses"]["200"]["content"]["application/json"]
            content["examples"] = {name: {"value": value} for name, value in answers.items()}
    return document
