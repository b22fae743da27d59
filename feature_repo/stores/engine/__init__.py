"""Feast compute engine that materializes in bounded, resumable chunks."""
