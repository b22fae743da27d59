"""The documents as a site: every link leads to a page of it, also those to code and examples."""

from __future__ import annotations

import importlib.util
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.imports import ROOT

DOCS = ROOT / "docs"
SITE = runpy.run_path(str(DOCS / "site_links.py"))


@pytest.mark.parametrize(
    ("document", "target", "page"),
    [
        ("docs/index.md", "../README.md", "files/README.md"),
        ("docs/index.md", "tutorial.md", "tutorial.md"),
        ("docs/index.md", "adr", "adr/index.md"),
        (
            "docs/howto/stores.md",
            "../../feature_repo/profiles/redis.yaml",
            "../files/feature_repo/profiles/redis.yaml.md",
        ),
        ("README.md", "docs/tutorial.md", "../tutorial.md"),
        ("README.md", "LICENSE", "LICENSE.md"),
        ("docs/index.md", "https://feast.dev/docs", "https://feast.dev/docs"),
    ],
)
def test_link_leads_to_a_page(document: str, target: str, page: str) -> None:
    assert SITE["relinked"](f"see [it]({target}#part).", ROOT / document) == f"see [it]({page}#part)."


def test_code_is_left_as_it_is() -> None:
    text = "```\n[it](../README.md)\n```\n"
    assert SITE["relinked"](text, DOCS / "index.md") == text


def test_pages_of_files_show_them() -> None:
    assert SITE["content"](ROOT / "feature_repo" / "profiles" / "redis.yaml").startswith(
        "# feature_repo/profiles/redis.yaml\n\n````yaml\n"
    )
    assert "- [0043 Read CSV files as they are written](0043-files-as-written.md)" in SITE["content"](DOCS / "adr")


def test_files_linked_from_the_readme_are_taken_along() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in SITE["linked"](DOCS.rglob("*.md"))}
    assert {"README.md", "LICENSE", "feature_repo/contract.py", "docs/adr"} <= names


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        given = dict(attrs)
        self.anchors.add(given.get("id") or "")
        self.links += [link for link in (given.get("href"), given.get("src")) if link]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """Every page of the site, built as `make docs` does."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed; `make setup` installs it")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path: Page(path.read_text()) for path in target.rglob("*.html") if path.name != "404.html"}


def test_links_of_the_site_lead_to_its_pages_and_their_parts(site: dict[Path, Page]) -> None:
    broken = []
    for path, page in site.items():
        for link in page.links:
            name, _, part = link.partition("#")
            if re.match(r"[a-z]+:|//", link):
                continue
            target = (path.parent / unquote(name.partition("?")[0])).resolve() if name else path
            if not target.is_file() or (part and target in site and unquote(part) not in site[target].anchors):
                broken.append((path.name, link))
    assert broken == []


def test_lists_and_tables_of_the_site_are_lists_and_tables(site: dict[Path, Page]) -> None:
    """Markdown that forges render and mkdocs does not: a list right after a paragraph, a table without its head."""
    for path in site:
        main = path.read_text().partition('role="main"')[2].partition("<footer")[0]
        prose = re.sub(r"<(pre|code)>.*?</\1>", "", main, flags=re.DOTALL)
        assert re.findall(r"^(?:[-*] \S|\d+\. |```|\|\s*-{3}).*", prose, flags=re.MULTILINE) == [], path.name
