"""The one module that `feast apply` loads.

Feast imports every module of a repo a second time under a bare name and would find each object twice, so the objects
are built elsewhere and only named here; `.feastignore` keeps Feast away from the other modules.
"""

from pathlib import Path

from feature_repo.declarations import load

globals().update(load(Path(__file__).parent / "data"))
