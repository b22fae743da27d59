"""A hook of mkdocs: files that documents link to outside of their folder become pages of the site.

On a forge such a link opens the file. The site has no forge beside it, so it takes along what is linked: Markdown as it
is, code as a page that shows it, a folder of decisions as a list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
_FENCED = re.compile(r"(```.*?```)", re.DOTALL)
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".toml": "toml"}


def on_files(files: Any, config: Any) -> Any:
    """Add a page for every file that a document, or a page added here, links to."""
    from mkdocs.structure.files import File

    for path in sorted(linked(DOCS.rglob("*.md"))):
        files.append(File.generated(config, page_of(path), content=content(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to files outside lead to their pages."""
    return relinked(markdown, DOCS / page.file.src_uri)


def linked(documents: Iterator[Path]) -> set[Path]:
    """Files and folders that the site must take along."""
    found: set[Path] = set()
    waiting = list(documents)
    while waiting:
        document = waiting.pop()
        new = {path for path in targets(document) if not is_document(path)} - found
        found |= new
        waiting += [path for path in new if path.suffix == ".md"]
    return found


def targets(document: Path) -> Iterator[Path]:
    """What a document links to on this tree."""
    for part in _FENCED.split(document.read_text())[::2]:
        for _, target, _ in _LINK.findall(part):
            if "://" not in target:
                yield (document.parent / target).resolve()


def is_document(path: Path) -> bool:
    """Whether mkdocs makes a page of it by itself."""
    return path.suffix == ".md" and path.is_relative_to(DOCS)


def page_of(path: Path) -> str:
    """Where the page of a file lies, relative to the documents."""
    if path.is_dir() and path.is_relative_to(DOCS):
        return f"{path.relative_to(DOCS).as_posix()}/index.md"
    name = path.relative_to(ROOT).as_posix()
    return f"files/{name}" if path.suffix == ".md" else f"files/{name}.md"


def content(path: Path) -> str:
    """Markdown of the page of a file or folder."""
    if path.is_dir():
        return f"# {path.relative_to(ROOT)}\n\n" + "\n".join(_items(path)) + "\n"
    if path.suffix == ".md":
        return relinked(path.read_text(), path)
    shown = f"````{_LANGUAGES.get(path.suffix, 'text')}\n{path.read_text().rstrip()}\n````\n"
    return f"# {path.relative_to(ROOT)}\n\n{shown}"


def _items(folder: Path) -> Iterator[str]:
    pages = sorted(folder.glob("*.md"))
    for page in pages:
        title = page.read_text().partition("\n")[0].removeprefix("# ")
        yield f"- [{title}]({page.name})"
    if not pages:
        yield from (f"- `{each.name}`" for each in sorted(folder.iterdir()) if not each.name.startswith(("_", ".")))


def relinked(markdown: str, document: Path) -> str:
    """The same text with links that lead to pages of this site.

    Args:
        document: File that the text is from; its links are relative to it.
    """
    inside = document if document.is_relative_to(DOCS) else DOCS / page_of(document)
    parts = _FENCED.split(markdown)
    parts[::2] = [
        _LINK.sub(lambda found: _relinked(found, document.parent, inside.parent), part) for part in parts[::2]
    ]
    return "".join(parts)


def _relinked(found: re.Match[str], here: Path, there: Path) -> str:
    before, target, after = found.groups()
    path = (here / target).resolve()
    if "://" in target or not path.exists():
        return found[0]
    page = path if is_document(path) else DOCS / page_of(path)
    return f"{before}{os.path.relpath(page, there)}{after}"
