"""A real corpus where there is no web: the HTML documentation that Debian packages carry, as pages and as WARC.

``python -m benchmarks.debian_pages OUT`` downloads the packages with ``apt-get download``, unpacks them without
installing anything, and lays out below ``OUT``:

- ``pages/PACKAGE/…``: every HTML page once, under its path in the package;
- ``warc/GROUP.warc.gz``: the same pages as responses, one gzip member a record, as Common Crawl has them;
- ``copyright/PACKAGE``: what the package says on its licences;
- ``inventory.tsv``: group, package, version, pages and bytes.

What is there already is not done again.
"""

import argparse
import csv
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import quote

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

_LIBREOFFICE = "cs de el en-us es fr hi id it ja ko nl pl pt ru sv tr vi zh-cn zh-tw"
_GIMP = "de el es fr it ja ko nl pt ru sv zh-cn"
_LILYPOND = "ca de es fr it ja zh"
_REFERENCE = "de en es fr id it ja pt pt-br zh-cn zh-tw"
_APTITUDE = "cs en es fi fr it ja nl ru"
_FAQ = "de fr it ja ko nl pt ru zh-cn"
_DEVELOPERS = "de fr it ja ru"


def _in_languages(prefix: str, languages: str) -> tuple[str, ...]:
    return tuple(f"{prefix}-{language}" for language in languages.split())


GROUPS: Mapping[str, tuple[str, ...]] = {
    "rust": ("rust-doc",),
    "java": ("openjdk-17-doc",),
    "python": (
        *("python-pandas-doc", "python-statsmodels-doc", "python3.11-doc", "twisted-doc"),
        *("python-django-doc", "python-sqlalchemy-doc"),
    ),
    "systems": (
        *("cppreference-doc-en-html", "linux-doc-6.1", "libboost1.81-doc", "postgresql-doc-15"),
        *("qtbase5-doc-html", "qtdeclarative5-doc-html", "gnome-devel-docs"),
    ),
    "languages": ("erlang-doc", "racket-doc", "fp-docs-3.2.2"),
    "libreoffice": _in_languages("libreoffice-help", _LIBREOFFICE),
    "media": (*_in_languages("gimp-help", _GIMP), *_in_languages("lilypond-doc-html", _LILYPOND)),
    "debian": (
        *("debian-handbook", "installation-guide-amd64"),
        *_in_languages("debian-reference", _REFERENCE),
        *_in_languages("aptitude-doc", _APTITUDE),
        *_in_languages("debian-faq", _FAQ),
        *_in_languages("developers-reference", _DEVELOPERS),
    ),
}
"""WARC file -> packages; each file is roughly a tenth of its pages' size."""

_PAGE_SUFFIXES = (".html", ".htm", ".xhtml", ".html.gz", ".htm.gz")
_CRAWLED = "2023-06-10T00:00:00Z"  # Debian 12's release: the same bytes whenever this runs


@dataclass(frozen=True)
class Held:
    """What a package gave."""

    group: str
    package: str
    version: str
    pages: int
    bytes: int


def lay_out(root: Path, groups: Mapping[str, tuple[str, ...]]) -> list[Held]:
    """Download, unpack and write everything below ``root``; return the inventory."""
    held = []
    for group, packages in groups.items():
        held += [_hold(root, group, package) for package in packages]
        archive = root / "warc" / f"{group}.warc.gz"
        if not archive.exists():
            archive.parent.mkdir(exist_ok=True)
            pages = (page for package in packages for page in find_pages(root / "pages" / package))
            _write_warc(archive, root / "pages", pages)
    _write_inventory(root / "inventory.tsv", held)
    return held


def find_pages(folder: Path) -> Iterator[Path]:
    """Yield the pages below ``folder``, in an order that does not depend on the disk."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def page_url(pages: Path, page: Path) -> str:
    """Return the address that stands for a page: its package is the host."""
    package, *below = page.relative_to(pages).parts
    return f"https://{package}.docs.example/{quote('/'.join(below))}"


def write_text_jsonl(pages: Path, out: Path, limit_bytes: int) -> int:
    """Write pages' main text as JSON Lines (keys text, url, id) up to ``limit_bytes`` of text; return the lines.

    Pages come in an order keyed by their path, so that a small limit still samples every package.
    """
    ordered = sorted(find_pages(pages), key=lambda page: _key(pages, page))
    written = lines = 0
    with out.open("w", encoding="utf-8") as file:
        for page in ordered:
            if written >= limit_bytes:
                break
            text = main_text(page.read_bytes())
            if text:
                url = page_url(pages, page)
                file.write(json.dumps({"text": text, "url": url, "id": url}, ensure_ascii=False) + "\n")
                written += len(text.encode())
                lines += 1
    return lines


def write_sample(
    root: Path, folder: Path, num_pages: int, text_bytes: int = 100_000_000, *, num_warcs: int = 1
) -> None:
    """Lay out a corpus for ``benchmarks/data_prep.py``: pages of every package, the same as WARC, and their text.

    Args:
        root: what ``lay_out`` made.
        folder: gets ``pages/*.html``, ``pages.warc.gz`` and ``text.jsonl``.
        num_pages: pages to take, in the order of ``write_text_jsonl``.
        text_bytes: text to take, of these pages and of as many more as it needs.
        num_warcs: files that the pages are dealt to; more than one are ``pages-0.warc.gz`` and so on.
    """
    pages = root / "pages"
    taken = sorted(find_pages(pages), key=lambda page: _key(pages, page))[:num_pages]
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(taken):
        shutil.copyfile(page, folder / "pages" / f"{number:06d}.html")
    for number in range(num_warcs):
        name = "pages.warc.gz" if num_warcs == 1 else f"pages-{number}.warc.gz"
        _write_warc(folder / name, pages, iter(taken[number::num_warcs]))
    write_text_jsonl(pages, folder / "text.jsonl", text_bytes)


def main_text(content: bytes) -> str:
    """Return the text of a page without menus, headers and footers."""
    html = bytes_to_str(content, detect_encoding(content))
    return str(extract_plain_text(html, main_content=True, preserve_formatting=True)).strip()


def _key(pages: Path, page: Path) -> bytes:
    return hashlib.blake2b(page.relative_to(pages).as_posix().encode(), digest_size=16).digest()


def _hold(root: Path, group: str, package: str) -> Held:
    """Have the pages of a package below ``pages/``."""
    archive = _download(root / "debs", package)
    target = root / "pages" / package
    if not target.exists():
        unpacked, partial = root / "unpacked", root / "partial"
        for folder in (unpacked, partial):
            shutil.rmtree(folder, ignore_errors=True)
        partial.mkdir()
        subprocess.run(["dpkg", "-x", str(archive), str(unpacked)], check=True)
        _take_pages(unpacked, partial)
        _take_copyright(unpacked, package, root / "copyright")
        target.parent.mkdir(exist_ok=True)
        partial.rename(target)
        shutil.rmtree(unpacked)
    sizes = [page.stat().st_size for page in find_pages(target)]
    version = archive.name.split("_")[1].replace("%3a", ":")
    return Held(group, package, version, len(sizes), sum(sizes))


def _download(folder: Path, package: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{package}_*.deb")):
        subprocess.run(["apt-get", "-qq", "download", package], cwd=folder, check=True)
    return next(iter(sorted(folder.glob(f"{package}_*.deb"))))


def _take_pages(unpacked: Path, target: Path) -> None:
    """Move pages; of a page that has several names (hard links) one is taken, of symbolic links none."""
    seen: set[int] = set()
    for path in sorted(unpacked.rglob("*")):
        if path.is_symlink() or not path.is_file() or not path.name.lower().endswith(_PAGE_SUFFIXES):
            continue
        status = path.stat()
        if status.st_ino in seen or status.st_size == 0:
            continue
        seen.add(status.st_ino)
        page = target / path.relative_to(unpacked)
        page.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".gz":
            page.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        else:
            os.link(path, page)


def _take_copyright(unpacked: Path, package: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    stated = unpacked / "usr/share/doc" / package / "copyright"
    if stated.is_file():  # else the package's documentation folder is a link to another package's
        shutil.copyfile(stated, folder / package)


def _write_warc(out: Path, pages: Path, taken: Iterator[Path]) -> None:
    partial = out.with_name(out.name + ".partial")
    with partial.open("wb") as file:
        description = b"software: gptdist benchmarks/debian_pages.py\r\nformat: WARC File Format 1.0\r\n"
        file.write(_record("warcinfo", None, "application/warc-fields", description))
        for page in taken:
            content = page.read_bytes()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            url = page_url(pages, page)
            file.write(_record("response", url, "application/http; msgtype=response", head + content))
    partial.rename(out)


def _record(kind: str, url: str | None, content_type: str, block: bytes) -> bytes:
    """Return a WARC record as one gzip member."""
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{kind} {url}")
    lines = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        f"WARC-Record-ID: <urn:uuid:{identity}>",
        f"WARC-Date: {_CRAWLED}",
        *([f"WARC-Target-URI: {url}"] if url else []),
        f"Content-Type: {content_type}",
        f"Content-Length: {len(block)}",
    ]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return gzip.compress(head + block + b"\r\n\r\n", mtime=0)


def _write_inventory(path: Path, held: list[Held]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Held)], delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(row) for row in held)


def main() -> None:
    """Lay the corpus out and print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="OUT", help="folder; needs 6 GB")
    parser.add_argument("--sample", type=Path, metavar="FOLDER", help="also lay out a sample for benchmarks there")
    parser.add_argument("--sample-pages", type=int, default=5_000)
    options = parser.parse_args()
    options.root.mkdir(parents=True, exist_ok=True)
    held = lay_out(options.root, GROUPS)
    for group in GROUPS:
        rows = [row for row in held if row.group == group]
        size = (options.root / "warc" / f"{group}.warc.gz").stat().st_size
        print(
            f"{group:<12} {len(rows):>4} packages {sum(row.pages for row in rows):>8,} pages "
            f"{sum(row.bytes for row in rows) / 1e6:>9,.1f} MB of HTML {size / 1e6:>7,.1f} MB of WARC"
        )
    print(f"{len(held)} packages, {sum(r.pages for r in held):,} pages, {sum(r.bytes for r in held) / 1e6:,.1f} MB")
    if options.sample:
        write_sample(options.root, options.sample, options.sample_pages)


if __name__ == "__main__":
    main()
