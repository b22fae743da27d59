"""Which feature repo a catalogue in a database of its own belongs to: two runs must not share one by accident."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

from sqlalchemy import select, update

from feature_repo.catalogue.database import Database
from feature_repo.catalogue.errors import CatalogueError
from feature_repo.catalogue.tables import schema
from feature_repo.contract import write_atomically

ID_FILE: Final = "catalogue_id"
"""File in the repo's `data` that names it to a catalogue elsewhere; it moves and is copied with the run."""


def claim(database: Database, data_dir: Path) -> None:
    """Bind a catalogue to the feature repo that opens it first.

    Raises:
        CatalogueError: It is another repo's.
    """
    file = data_dir / ID_FILE
    own = file.read_text().strip() if file.is_file() else None
    with database.reading() as connection:
        home = connection.execute(select(schema.c.home)).scalar_one()
    if home is None:
        home = own = _claimed(database, file, own or uuid.uuid4().hex)
    if home != own:
        raise CatalogueError(
            f"catalogue {database} must be that of {data_dir.parent} (got another feature repo's); give each run a "
            "database of its own, or in PostgreSQL a schema: ?options=-csearch_path=<schema>"
        )


def _claimed(database: Database, file: Path, own: str) -> str:
    """Home of the catalogue after an attempt to be it: the file comes first, so that a kill leaves no unknown home."""
    write_atomically(file, own + "\n")
    with database.writing() as connection:
        connection.execute(update(schema).where(schema.c.home.is_(None)).values(home=own))
        home: str = connection.execute(select(schema.c.home)).scalar_one()
        return home
