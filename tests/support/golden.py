"""Files that say word for word what a command writes; ``GPTDIST_WRITE_GOLDEN=1`` writes them anew."""

import os

from tests.support.ranks import repository


def check_golden(name: str, text: str) -> None:
    """Compare ``text`` with the golden file."""
    path = repository() / "tests" / "golden" / name
    if os.environ.get("GPTDIST_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path}: if the change is meant, write it anew with GPTDIST_WRITE_GOLDEN=1"
