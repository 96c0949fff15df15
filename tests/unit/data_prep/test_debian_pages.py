"""The real corpus is laid out from Debian packages: here from one that the test builds."""

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from benchmarks.debian_pages import Held, lay_out, write_sample, write_text_jsonl

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb, which Debian has")

PACKAGE = "harbour-doc"
PAGE = (
    "<html><body><main><article><h1>{0}</h1><p>{0} is a page of its own, and this is what it says.</p>"
    "</article></main></body></html>"
)
GROUPS = {"harbours": (PACKAGE,)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the package already downloaded."""
    tree = tmp_path / "tree"
    folder = tree / "usr/share/doc" / PACKAGE
    (folder / "more pages").mkdir(parents=True)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: {PACKAGE}\nVersion: 1.2-3\nArchitecture: all\nMaintainer: A <a@localhost>\nDescription: pages\n"
    )
    (folder / "index.html").write_text(PAGE.format("Index"))
    os.link(folder / "index.html", folder / "start.html")
    (folder / "again.html").symlink_to("index.html")
    (folder / "more pages/é.HTM").write_text(PAGE.format("Second"))
    (folder / "old.html.gz").write_bytes(gzip.compress(PAGE.format("Third").encode()))
    (folder / "empty.html").touch()
    (folder / "style.css").write_text("p { margin: 0 }")
    (folder / "copyright").write_text("Licence: public domain\n")
    debs = tmp_path / "out/debs"
    debs.mkdir(parents=True)
    command = ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(debs / f"{PACKAGE}_1.2-3_all.deb")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return tmp_path / "out"


def archived(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return {
            record.rec_headers.get_header("WARC-Target-URI"): record.content_stream().read().decode()
            for record in ArchiveIterator(file)
            if record.rec_type == "response"
        }


def test_every_page_is_there_once_in_every_form(root: Path) -> None:
    held = lay_out(root, GROUPS)
    folder = root / "pages" / PACKAGE / "usr/share/doc" / PACKAGE
    pages = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert pages == {
        "index.html": PAGE.format("Index"),
        "more pages/é.HTM": PAGE.format("Second"),
        "old.html": PAGE.format("Third"),
    }
    assert held == [Held("harbours", PACKAGE, "1.2-3", 3, sum(map(len, pages.values())))]
    host = f"https://{PACKAGE}.docs.example/usr/share/doc/{PACKAGE}"
    assert archived(root / "warc/harbours.warc.gz") == {
        f"{host}/index.html": PAGE.format("Index"),
        f"{host}/more%20pages/%C3%A9.HTM": PAGE.format("Second"),
        f"{host}/old.html": PAGE.format("Third"),
    }
    assert (root / "copyright" / PACKAGE).read_text() == "Licence: public domain\n"
    assert (root / "inventory.tsv").read_text().splitlines() == [
        "group\tpackage\tversion\tpages\tbytes",
        f"harbours\t{PACKAGE}\t1.2-3\t3\t{sum(map(len, pages.values()))}",
    ]


def test_what_is_there_is_kept_and_bytes_are_the_same(root: Path) -> None:
    lay_out(root, GROUPS)
    archive = root / "warc/harbours.warc.gz"
    first, made = archive.read_bytes(), archive.stat().st_mtime_ns
    lay_out(root, GROUPS)
    assert archive.stat().st_mtime_ns == made
    archive.unlink()
    lay_out(root, GROUPS)
    assert archive.read_bytes() == first
    assert first[4:8] == bytes(4)  # gzip's field for the time


def test_text_stops_at_its_limit(root: Path) -> None:
    lay_out(root, GROUPS)
    assert write_text_jsonl(root / "pages", root / "all.jsonl", 10_000) == 3
    assert write_text_jsonl(root / "pages", root / "one.jsonl", 1) == 1
    lines = [json.loads(line) for line in (root / "all.jsonl").read_text().splitlines()]
    assert sorted(line["text"].split()[0] for line in lines) == ["Index", "Second", "Third"]
    assert all(line["id"] == line["url"] for line in lines)
    assert (root / "one.jsonl").read_text() == (root / "all.jsonl").read_text().splitlines(keepends=True)[0]


def test_a_sample_has_the_same_pages_in_every_form(root: Path, tmp_path: Path) -> None:
    lay_out(root, GROUPS)
    write_sample(root, tmp_path / "sample", 2)
    pages = {path.read_text() for path in (tmp_path / "sample/pages").iterdir()}
    assert len(pages) == 2
    assert set(archived(tmp_path / "sample/pages.warc.gz").values()) == pages
    assert len((tmp_path / "sample/text.jsonl").read_text().splitlines()) == 3


def test_a_sample_is_dealt_to_several_archives(root: Path, tmp_path: Path) -> None:
    lay_out(root, GROUPS)
    write_sample(root, tmp_path / "sample", 3, num_warcs=2)
    dealt = [archived(path) for path in sorted((tmp_path / "sample").glob("*.warc.gz"))]
    assert [len(pages) for pages in dealt] == [2, 1]
    assert len({**dealt[0], **dealt[1]}) == 3
