"""Feast offline store: point-in-time joins over local parquet snapshots."""
