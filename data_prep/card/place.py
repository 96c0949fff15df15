"""Where documents come from, as one word for many: the host of an address, or a folder."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import xxhash

from data_prep.account_rows import storable

_HOST = r"^(?:[A-Za-z][A-Za-z0-9+.\-]*:)?//(?:[^/?#@]*@)?(?:[wW]{3}\.)?(?P<host>\[[^\]/]*\]|[^/?#:]+)"
UNNAMED = "(no name)"
_MAX_ROOTS = 100
"""Of more roots, which are then files rather than folders, the first folder of each path is taken."""


def places(urls: Any, paths: Any, roots: Sequence[str]) -> Any:
    """Return the place of each document.

    It is the host of its URL (or of a path that is one) in lower case without ``www.``; for a file the first folder
    below the root it was found under.

    Args:
        urls: string array, null where there is no URL.
        paths: string array.
        roots: the source's ``paths``.
    """
    host = pc.coalesce(_hosts(urls), _hosts(paths), _folders(paths, roots))
    return pc.if_else(pc.equal(host, ""), UNNAMED, host)


def _hosts(addresses: Any) -> Any:
    return pc.utf8_lower(pc.struct_field(pc.extract_regex(addresses, _HOST), [0]))


def _folders(paths: Any, roots: Sequence[str]) -> Any:
    """Return the root and the first folder below it; a file that is a root itself goes by its folder."""
    first = pc.struct_field(pc.extract_regex(paths, r"^(?P<folder>/?[^/]+/)"), [0])
    known = sorted(
        {storable(root.rstrip("/")) for root in roots if "://" not in root}, key=lambda root: (-len(root), root)
    )
    if not known or len(known) > _MAX_ROOTS:
        return pc.coalesce(first, paths)
    any_root = "|".join(map(re.escape, known))
    below = pc.extract_regex(paths, rf"^(?P<folder>(?:{any_root})/(?:[^/]+/)?)")
    return pc.coalesce(pc.struct_field(below, [0]), first, paths)


def string_hashes(values: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return 64-bit hashes of strings."""
    return np.fromiter((xxhash.xxh3_64_intdigest(value.encode()) for value in values), np.uint64, len(values))
