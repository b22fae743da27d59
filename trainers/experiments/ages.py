"""How the ages of embeddings are named in tables."""

from __future__ import annotations

from typing import Any

FRESH, MISSING, WITHOUT = "fresh", "missing", "never had embeddings"


def age_name(age: int) -> str:
    """Vectors that are so many days older than fresh ones."""
    return f"{age} day{'s' if age > 1 else ''} older"


def age_cells(name: str) -> dict[str, Any]:
    """`age_days` of a name; nothing where vectors have no age."""
    if name == FRESH:
        return {"age_days": 0}
    first = name.split()[0]
    return {"age_days": int(first)} if first.isdigit() else {}
