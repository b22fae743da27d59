"""Rows and values in Feast's own bytes, whole columns at a time."""
