"""Reads what servers logged: as impressions to train on, and against what training would have computed."""
