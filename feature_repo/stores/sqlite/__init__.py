"""Feast online store and registry on SQLite."""
