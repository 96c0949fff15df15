"""Which cases ``make test`` leaves to ``make test-all``."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.ranks import repository

FILE = """\
import pytest

@pytest.mark.every(3)
@pytest.mark.parametrize("case", range(8))
def test_of_many(case): pass

@pytest.mark.every(3)
@pytest.mark.parametrize("case", range(2))
def test_of_two(case): pass

@pytest.mark.parametrize("case", [0, pytest.param(1, marks=pytest.mark.long)])
def test_with_a_long_one(case): pass
"""


def _collected(folder: Path, *words: str) -> list[str]:
    (folder / "test_file.py").write_text(FILE)
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", "/dev/null", "--rootdir", str(folder)]
    argv += ["--collect-only", "-q", *words, "test_file.py"]
    done = subprocess.run(
        argv, cwd=folder, env={"PYTHONPATH": str(repository())}, capture_output=True, text=True, check=False
    )
    return re.findall(r"::(\S+)", done.stdout)


def test_the_first_case_and_each_nth_stay(tmp_path: Path) -> None:
    assert _collected(tmp_path, "-m", "not long") == [
        *("test_of_many[0]", "test_of_many[3]", "test_of_many[6]", "test_of_two[0]", "test_with_a_long_one[0]"),
    ]


def test_all_are_there_when_nothing_is_left_out(tmp_path: Path) -> None:
    assert len(_collected(tmp_path)) == 12
    assert _collected(tmp_path, "-k", "test_of_two") == ["test_of_two[0]", "test_of_two[1]"]
