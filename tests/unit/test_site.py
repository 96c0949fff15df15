"""The pages of docs/ as a site: it builds, nothing is left out, and nothing is fetched from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.browser import CHROMIUM, browser_page
from tests.support.ranks import repository

CUT_OFF = """[...document.querySelectorAll('article table, article img, article pre')].filter(element => {
  if (element.getBoundingClientRect().right <= innerWidth) return false
  while (element && getComputedStyle(element).overflowX !== 'auto') element = element.parentElement
  return !element
}).map(element => element.outerHTML.slice(0, 80))"""
"""What is wider than the window and cannot be scrolled into it."""


class _Resources(HTMLParser):
    """Collects what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset") and tag != "a"]
        self.found += [value or "" for name, value in attrs if name == "style"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        argv, cwd=repository(), env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _pages_of(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in _pages_of(part)]


def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.safe_load((repository() / "mkdocs.yml").read_text())["nav"]
    assert sorted(_pages_of(nav)) == sorted(path.name for path in (repository() / "docs").glob("*.md"))


def test_the_first_page_leads_to_every_task() -> None:
    linked = set(re.findall(r"\]\((\w+\.md)\)", (repository() / "docs" / "index.md").read_text()))
    assert linked == {path.name for path in (repository() / "docs").glob("*.md")} - {"index.md"}


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = {}
    for path in site.rglob("*.html"):
        resources = _Resources()
        resources.feed(path.read_text())
        loaded[path.name] = resources.found
    assert any("bundle" in resource for resource in loaded["training.html"])
    assert not {page: found for page in loaded if (found := [one for one in loaded[page] if "//" in one])}
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", style.read_text()), style


def test_links_to_headings_lead_somewhere(site: Path) -> None:
    """MkDocs checks those that are written in the pages; this looks at what was built, images included."""
    for path in site.rglob("*.html"):
        text = path.read_text()
        for link in re.findall(r"<(?:a|img)\s[^>]*?(?:href|src)=\"([^\"#]*)(?:#[^\"]*)?\"", text):
            there = link and "//" not in link and path.name != "404.html"
            assert not there or (path.parent / link).is_file(), f"{path.name}: {link}"


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_opened_from_the_disk_it_can_be_searched_and_read_on_a_phone(site: Path) -> None:
    with browser_page() as page:
        page.look(width=1440)
        page.open((site / "training.html").as_uri())
        page.wait("document.querySelector('.md-search__input') !== null")
        page.run("document.querySelector('.md-search__input').focus()")
        page.type("hysteresi")
        page.press("s")
        page.wait("document.querySelector('.md-search-result__item a[href*=\"training.html\"]') !== null")
        page.look(width=390)
        for built in sorted(site.glob("[!4]*.html")):
            page.open(built.as_uri())
            assert page.overflow() <= 0, built.name
            assert page.run(CUT_OFF) == [], built.name
        assert not page.told, page.told
