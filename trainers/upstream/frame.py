"""All vectors of one day."""

from __future__ import annotations

from collections.abc import Mapping

from trainers.upstream.aggregate import Keys, Vectors

Frame = Mapping[str, tuple[Keys, Vectors]]
"""Keys [N], strictly increasing, and vectors [N, E] of each entity."""
