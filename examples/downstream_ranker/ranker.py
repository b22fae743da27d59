"""A click ranker of another team, on Headwater's embeddings and activity features.

Training frames and online lookups come from one feature service through plain Feast; nothing of Headwater is installed
or imported. The model is a logistic regression kept as JSON, so that the example stays about the features.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from feast import FeatureStore
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

KEYS = ("user_id", "pin_id", "event_timestamp")
Values = npt.NDArray[np.float64]


def training_frame(store: FeatureStore, service: str, impressions: pd.DataFrame) -> pd.DataFrame:
    """Each impression with the features as they were known at its own moment.

    Args:
        impressions: `user_id`, `pin_id`, `event_timestamp` with a time zone, and a label.
    """
    features = store.get_feature_service(service)
    frame = store.get_historical_features(entity_df=impressions, features=features, full_feature_names=True).to_df()
    return frame.sort_values(list(KEYS), ignore_index=True)


def online_frame(store: FeatureStore, service: str, user_id: int, pin_ids: list[int]) -> pd.DataFrame:
    """One row for each candidate, as the online store knows it now."""
    rows = [{"user_id": user_id, "pin_id": pin_id} for pin_id in pin_ids]
    features = store.get_feature_service(service)
    return store.get_online_features(features=features, entity_rows=rows, full_feature_names=True).to_df()


def inputs(frame: pd.DataFrame) -> dict[str, Values]:
    """Inputs of the model by name: numbers, whether they were missing, and how well user and Pin vectors agree."""
    found: dict[str, Values] = {}
    for name in sorted(frame.columns):
        if name in KEYS or name.endswith("__data_cutoff"):
            continue
        if name.endswith("__embedding") and name.startswith("user_"):
            found[f"agreement__{name}"] = _agreement(frame[name], frame[name.replace("user_", "pin_", 1)])
        elif pd.api.types.is_numeric_dtype(frame[name]):
            values = pd.to_numeric(frame[name]).to_numpy(np.float64)
            missing = np.isnan(values)
            found[name] = np.log1p(np.where(missing, 0.0, np.abs(values)))
            found[f"{name}__missing"] = missing.astype(np.float64)
    return found


def _agreement(users: pd.Series[Any], pins: pd.Series[Any]) -> Values:
    """Inner products of vectors that are there; 0 where one is missing."""
    pairs = zip(users, pins, strict=True)
    return np.array([0.0 if a is None or b is None else float(np.dot(a, b)) for a, b in pairs])


def fit(frame: pd.DataFrame, label: str) -> dict[str, Any]:
    """A model as a mapping that JSON can hold: names of its inputs, weights and intercept."""
    named = inputs(frame.drop(columns=[label]))
    names = [name for name, values in named.items() if np.ptp(values) > 0]
    matrix = np.column_stack([named[name] for name in names])
    mean, scale = matrix.mean(axis=0), matrix.std(axis=0)
    model = LogisticRegression(C=0.1, max_iter=1_000).fit((matrix - mean) / scale, frame[label])
    weights = model.coef_[0] / scale
    return {
        "weights": dict(zip(names, weights.tolist(), strict=True)),
        "intercept": float(model.intercept_[0] - weights @ mean),
    }


def probabilities(model: dict[str, Any], frame: pd.DataFrame) -> Values:
    """Probability of the label for every row; an input that the frame lacks counts as 0."""
    named = inputs(frame)
    zero = np.zeros(len(frame))
    logits = sum((weight * named.get(name, zero) for name, weight in model["weights"].items()), zero)
    return 1.0 / (1.0 + np.exp(-(logits + model["intercept"])))


def rank(store: FeatureStore, service: str, model: dict[str, Any], user_id: int, pin_ids: list[int]) -> list[int]:
    """Candidates, the most promising first."""
    frame = online_frame(store, service, user_id, pin_ids)
    order = np.argsort(-probabilities(model, frame), kind="stable")
    return [int(pin) for pin in frame["pin_id"].to_numpy()[order]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a ranker on a feature service, then rank candidates.")
    parser.add_argument("--repo", default=Path(__file__).parent / "feature_repo", type=Path)
    parser.add_argument("--service", default="ranking__ctr_v1", help="feature service, named with its embeddings")
    parser.add_argument(
        "--impressions", required=True, help="parquet with user_id, pin_id, event_timestamp and a label"
    )
    parser.add_argument("--label", default="click")
    parser.add_argument("--user", required=True, type=int)
    parser.add_argument("--pins", required=True, type=int, nargs="+")
    given = parser.parse_args()
    store = FeatureStore(str(given.repo))
    shown = pd.read_parquet(given.impressions)[[*KEYS, given.label]]
    frame = training_frame(store, given.service, shown)
    model = fit(frame, given.label)
    auc = roc_auc_score(frame[given.label], probabilities(model, frame.drop(columns=[given.label])))
    ranked = rank(store, given.service, model, given.user, given.pins)
    print(json.dumps({"rows": len(frame), "training_roc_auc": round(float(auc), 4), "ranked": ranked}))


if __name__ == "__main__":
    main()
