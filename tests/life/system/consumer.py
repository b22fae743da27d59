"""A server of the run in this process: its loader and follower without HTTP, asked what it would answer.

The one ranker of every release here gives the dot product of both vectors, so an answer says itself whether both are of
one space.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from serving.follower import Follower
from serving.metrics import Metrics
from serving.recommender import Recommender
from serving.settings import Settings
from tests.life.system.plain import PlainRun
from tests.life.system.promises import Truth
from tests.life.system.shop import NUM_PINS

USERS = (1, 9, 17, 24)
NEAR = 0.3
"""Most by which a dot product may be away from that of the latent vectors; strangers are away by 0.35 on average."""
LONG_AFTER = timedelta(days=4)
"""Longer than every TTL."""


class Consumer:
    """One server process that lives as long as the run, whatever is done to it."""

    def __init__(self, run: Path, truth: Truth) -> None:
        self._run, self._truth = run, truth
        self._follower = Follower(Settings(run=run, threads=1, retrieve=NUM_PINS), Metrics())
        self._follower._look(raising=True)
        if self._follower.refusal is not None:
            raise AssertionError(f"the server must start (got: {self._follower.refusal.reason})")

    def stop(self) -> None:
        """End its threads."""
        self._follower.stop()

    def broken(self) -> list[str]:
        """Every way in which the server does not answer as it should; empty when it does."""
        self._follower._look(raising=False)
        # What its second thread does: what may go live next waits loaded.
        self._follower._held.load_wanted()
        return list(self._broken())

    def _broken(self) -> Iterator[str]:
        plain = PlainRun(self._run)
        recommender, shadow = self._follower.recommender, self._follower.shadow
        for refusal in (self._follower.refusal, self._follower.shadow_refusal):
            if refusal is not None:
                yield f"the server refuses {refusal.release}: {refusal.reason}"
        if recommender is None:
            yield "the server has nothing to answer from"
            return
        pointers = plain.seen.pointers
        if recommender.release.manifest.release != pointers.live:
            yield f"the server answers from {recommender.release.manifest.release}, live is {pointers.live}"
        if (shadow.release if shadow is not None else None) != pointers.shadow:
            yield f"the server shadows {shadow}, the catalogue says {pointers.shadow}"
        yield from self._answers(plain, recommender)
        if shadow is not None:
            yield from self._answers(plain, shadow._recommender)

    def _answers(self, plain: PlainRun, recommender: Recommender) -> Iterator[str]:
        """Answers while vectors are fresh, and when the refresh has stopped for longer than their TTL."""
        release = recommender.release.manifest
        (key,) = release.spaces()
        newest = max(day["cutoff"] for day in plain.days if (day["key"], day["state"]) == (key, "visible"))
        users, pins = (self._truth.expected(entity, plain.reference(entity, key)) for entity in ("user", "pin"))
        for user in USERS:
            logits = _logits(recommender, user, newest + timedelta(hours=12))
            wrong = {pin: logit for pin, logit in logits.items() if abs(logit - users[user] @ pins[pin]) > NEAR}
            if wrong or len(logits) < NUM_PINS:
                yield f"{release.release} answers user {user} with {len(logits)} Pins, of two spaces: {wrong}"
        stale = _logits(recommender, USERS[0], max(each["cutoff"] for each in plain.days) + LONG_AFTER)
        if any(abs(logit) > 1e-6 for logit in stale.values()):
            yield f"{release.release} answers from vectors outside max age: {stale}"


def _logits(recommender: Recommender, user: int, now: datetime) -> dict[int, float]:
    """What the ranker said, before its calibration."""
    slope, intercept = recommender.release.manifest.rankers.pctr.calibration_on("home")
    ranked = recommender.rank(recommender.user(user, now), list(range(1, NUM_PINS + 1)), "home", now)
    pctr = np.asarray(ranked.pctr)
    logits = (np.log(pctr) - np.log1p(-pctr) - intercept) / slope
    return dict(zip(ranked.pin_ids, logits.tolist(), strict=True))
