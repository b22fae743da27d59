"""Random sequences of every operation, killed anywhere: no state is reachable that the catalogue does not promise."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.feature_repo.catalogue.machine import CatalogueMachine

TestCatalogue = CatalogueMachine.TestCase
TestCatalogue.settings = settings(
    max_examples=12, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
