"""Plain rules on size and letters."""

from gptdist.config.section import Section


class FilterSection(Section):
    """Rules a document has to pass, in this order; each counts what it drops."""

    min_characters: int = 1
    """Shortest text."""

    max_characters: int | None = None
    """Longest text."""

    max_line_characters: int | None = None
    """Longest line; data tables and minified code have longer ones."""

    min_alphabetic_fraction: float = 0.0
    """Least share of letters, of any script, among the characters that are not white space."""

    def problems(self) -> list[str]:
        """Return every value out of range."""
        bad = []
        if self.min_characters < 1:
            bad.append(f"filters.min_characters: must be at least 1, got {self.min_characters}")
        if self.max_characters is not None and self.max_characters < self.min_characters:
            bad.append(f"filters.max_characters: {self.max_characters} is below min_characters {self.min_characters}")
        if self.max_line_characters is not None and self.max_line_characters < 1:
            bad.append(f"filters.max_line_characters: must be at least 1, got {self.max_line_characters}")
        if not 0.0 <= self.min_alphabetic_fraction <= 1.0:
            bad.append(f"filters.min_alphabetic_fraction: must be 0 … 1, got {self.min_alphabetic_fraction}")
        return bad
