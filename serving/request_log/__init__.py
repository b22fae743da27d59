"""Writes what was answered to the request log, beside the answers and never in their way."""
