"""Holding a dataset's files against its declaration before anything is trained: `headwater check`."""
