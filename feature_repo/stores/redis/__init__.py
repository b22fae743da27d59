"""Feast online store on Redis or Valkey."""
