"""The files that are to come first in the suite are there."""

from tests.conftest import LONGEST_FIRST
from tests.support.ranks import repository


def test_files_that_come_first_exist() -> None:
    assert [name for name in LONGEST_FIRST if not (repository() / "tests" / name).exists()] == []
