"""Lists of addresses whose documents are not wanted: domains, beginnings of URLs, words; kept as 64-bit hashes."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_prep.compiled import compiled
from data_prep.quality.list_file import entry_lines
from gptdist.errors import DataError

_PLAIN_DOMAIN = re.compile(rb"[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]*:[0-9a-fA-F:.]+(?:%\w+)?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BOUNDARY = re.compile(rb"[/?&#]")
_WORD = re.compile(r"[^\W_]+")
_HASHED_TOGETHER = 1 << 16


class UrlList:
    """Hashes of blocked domains and beginnings of addresses, and of blocked words."""

    def __init__(self, domains: NDArray[np.uint64], prefixes: NDArray[np.uint64], words: frozenset[str]) -> None:
        self._domains, self._prefixes, self._words = domains, prefixes, words

    def __len__(self) -> int:
        return len(self._domains) + len(self._prefixes) + len(self._words)

    def blocked_by(self, url: str) -> tuple[str, str] | None:
        """Return ``domain``, ``prefix`` or ``word`` and the entry that blocks ``url``, or nothing."""
        host, rest = split_url(url)
        if len(self._domains):
            parents = [host, *(host[match.end() :] for match in re.finditer(rb"\.", host))]
            found = _first_in(self._domains, parents)
            if found is not None:
                return "domain", found.decode()
        if len(self._prefixes):
            whole = host + rest
            cuts = [match.start() for match in _BOUNDARY.finditer(whole, len(host) + 1)]
            found = _first_in(self._prefixes, [*(whole[:cut] for cut in cuts), whole])
            if found is not None:
                return "prefix", found.decode()
        if self._words:
            for word in _WORD.findall(url.lower()):
                if word in self._words:
                    return "word", word
        return None


@lru_cache(maxsize=2)
def load_url_list(paths: tuple[Path, ...], word_paths: tuple[Path, ...]) -> UrlList:
    """Read lists; each is held in memory once a process.

    Raises:
        DataError: a list cannot be read or has no entry.
    """
    domains, prefixes = _Hashes(), _Hashes()
    for path in paths:
        before = len(domains) + len(prefixes)
        for line in entry_lines(path, "quality.url_blocklist.files"):
            if _PLAIN_DOMAIN.fullmatch(line):
                domains.add(line.removeprefix(b"www."))
            else:
                _add_entry(line, domains, prefixes)
        if len(domains) + len(prefixes) == before:
            raise DataError(f"{path}: has no domain or address; remove it from quality.url_blocklist.files")
    where = "quality.url_blocklist.word_files"
    words = frozenset(line.decode().lower() for path in word_paths for line in entry_lines(path, where))
    bad = next((word for word in sorted(words) if not _WORD.fullmatch(word)), None)
    if bad is not None:
        raise DataError(f"{where}: '{bad}' is not one word of letters and digits; an address could never have it")
    return UrlList(domains.sorted(), prefixes.sorted(), words)


def split_url(url: str) -> tuple[bytes, bytes]:
    """Return host and the rest of an address, as they are compared.

    The scheme, a user's name, ``www.``, the port and a slash at the end do not matter; hosts are in lower case and in
    ASCII, as they are asked for on the network.
    """
    try:
        parts = urlsplit(url if _SCHEME.match(url) else f"http://{url.removeprefix('//')}")
        host = parts.hostname or ""
    except ValueError:  # such as an IPv6 address without its end
        return url.encode("utf-8", "replace"), b""
    rest = parts.path.rstrip("/") if not parts.query else f"{parts.path}?{parts.query}"
    return _ascii_host(host.rstrip(".")).removeprefix(b"www."), rest.encode("utf-8", "replace")


def _ascii_host(host: str) -> bytes:
    try:
        return host.encode("ascii") if host.isascii() else host.encode("idna")
    except UnicodeError:
        return host.encode("utf-8", "replace")


def _add_entry(line: bytes, domains: "_Hashes", prefixes: "_Hashes") -> None:
    """Add what a line blocks: one entry, or the names of a line of a hosts file."""
    fields = line.decode("utf-8", "replace").split()
    if len(fields) > 1 and _ADDRESS.fullmatch(fields[0]):
        for name in fields[1:]:
            host, _ = split_url(name)
            if b"." in host and not _ADDRESS.fullmatch(name):
                domains.add(host)
        return
    host, rest = split_url(fields[0])
    if host:
        (prefixes if rest else domains).add(host + rest)


class _Hashes:
    """A growing set of 64-bit hashes."""

    def __init__(self) -> None:
        self._done: list[NDArray[np.uint64]] = []
        self._recent: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self._done)) + len(self._recent)

    def add(self, entry: bytes) -> None:
        self._recent.append(xxhash.xxh3_64_intdigest(entry))
        if len(self._recent) >= _HASHED_TOGETHER:
            self._done.append(np.array(self._recent, np.uint64))
            self._recent = []

    def sorted(self) -> NDArray[np.uint64]:
        return np.unique(np.concatenate([*self._done, np.array(self._recent, np.uint64)]))


@compiled
def _find(hashes: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> int:
    for i in range(wanted.size):
        low, high = 0, hashes.size
        while low < high:
            middle = (low + high) // 2
            if hashes[middle] < wanted[i]:
                low = middle + 1
            else:
                high = middle
        if low < hashes.size and hashes[low] == wanted[i]:
            return i
    return -1


def _first_in(hashes: NDArray[np.uint64], candidates: Iterable[bytes]) -> bytes | None:
    listed = list(candidates)
    found = _find(hashes, np.array([xxhash.xxh3_64_intdigest(one) for one in listed], np.uint64))
    return listed[found] if found >= 0 else None
