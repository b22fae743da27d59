"""Feast plugins, named by class path in `feature_store.yaml`."""

from __future__ import annotations

import logging


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    """Feast says that this flag does nothing on a registry like ours; processes share ours, so it does."""
    return "serve_features_while_materializing" not in record.getMessage()


logging.getLogger("feast.repo_config").addFilter(_is_no_false_alarm)
