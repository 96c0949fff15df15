"""How the text of a page is found."""

from typing import Literal

from gptdist.config.section import Section


class ExtractSection(Section):
    """Text from HTML; applies to every page of every source, to nothing else."""

    content: Literal["main", "all"] = "main"
    """``main`` leaves out menus, headers and footers, and takes bulleted lists less than three elements below the body
    for menus; where that leaves under a fifth of a page's text, it leaves out only what the page itself marks as such.
    ``all`` keeps every visible text."""

    max_page_bytes: int = 20_000_000
    """A larger page is dropped and counted as ``page_too_large``."""

    max_page_tags: int = 750_000
    """So is one with more start tags and attributes: each takes up to 560 bytes of memory while the page is parsed."""

    max_page_seconds: float = 10.0
    """CPU time. A page whose tags foretell more is dropped as ``page_too_slow`` unparsed, on every machine alike; one
    that takes more all the same is given up after this time."""

    max_nesting: int = 5_000
    """A page whose tags nest deeper is dropped and counted as ``page_too_deep``."""

    def problems(self) -> list[str]:
        """Return every value out of range."""
        limits = {
            "max_page_bytes": self.max_page_bytes,
            "max_page_tags": self.max_page_tags,
            "max_nesting": self.max_nesting,
        }
        bad = [f"extract.{key}: must be at least 1, got {limit}" for key, limit in limits.items() if limit < 1]
        if self.max_page_seconds <= 0.0:
            bad.append(f"extract.max_page_seconds: must be above 0, got {self.max_page_seconds}")
        return bad
