"""The documentation's example of own data, copied and spoiled."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.integration.runs import SHOP

Row = dict[str, str]


class Shop:
    """A copy of the example; a test changes its files and its YAML."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(SHOP.parent, folder)
        self.yaml = folder / SHOP.name
        self.declared: dict[str, Any] = yaml.safe_load(self.yaml.read_text())

    def declare(self, **changes: Any) -> Shop:
        """Change keys of the YAML; those set to None go."""
        self.declared = {key: value for key, value in (self.declared | changes).items() if value is not None}
        self.yaml.write_text(yaml.safe_dump(self.declared))
        return self

    def table(self, name: str, **changes: Any) -> Shop:
        """Change keys of one table of the YAML."""
        tables = self.declared["tables"]
        return self.declare(tables=tables | {name: tables[name] | changes})

    def column(self, name: str, **columns: str) -> Shop:
        """Map columns of one table otherwise."""
        return self.table(name, columns=self.declared["tables"][name]["columns"] | columns)

    def rows(self, pattern: str, change: Callable[[list[Row]], list[Row]]) -> Shop:
        """Change the rows of every file that a glob matches; the header stays."""
        for file in sorted(self.yaml.parent.glob(pattern)):
            with file.open(newline="") as source:
                reader = csv.DictReader(source)
                found, names = list(reader), list(reader.fieldnames or ())
            with file.open("w", newline="") as target:
                writer = csv.DictWriter(target, names)
                writer.writeheader()
                writer.writerows(change(found))
        return self

    def each(self, pattern: str, **values: str) -> Shop:
        """Set columns to one value in every row of every file that a glob matches."""
        return self.rows(pattern, lambda rows: [row | values for row in rows])

    def text(self, pattern: str, content: bytes) -> Shop:
        """Write every file that a glob matches anew."""
        for file in sorted(self.yaml.parent.glob(pattern)):
            file.write_bytes(content)
        return self

    def without(self, name: str) -> Shop:
        """Remove a file."""
        (self.yaml.parent / name).unlink()
        return self

    def twice(self, name: str, copy: str) -> Shop:
        """Add a copy of a file under another name."""
        shutil.copy(self.yaml.parent / name, self.yaml.parent / copy)
        return self
