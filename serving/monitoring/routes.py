"""The name of a request's route: its path with the parameters named, so that metrics have few labels."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import compile_path


class RouteNames:
    """Names of an app's routes.

    Args:
        paths: Paths of the routes with their parameters, such as `/v1/releases/{id}/promote`.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        every = list(dict.fromkeys(paths))
        self._plain = frozenset(path for path in every if "{" not in path)
        self._patterns = tuple((compile_path(path)[0], path) for path in every if "{" in path)

    def of(self, path: str) -> str:
        """Name of the route that a request's path matches; empty where none does."""
        if path in self._plain:
            return path
        return next((name for pattern, name in self._patterns if pattern.fullmatch(path)), "")
