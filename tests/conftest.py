"""What every test leaves as it found it, and which tests come first."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

LONGEST_FIRST = (
    "e2e/test_demo.py",
    "distributed/test_swapping.py",
    "distributed/test_chaos.py",
    "distributed/test_resume_matrix.py",
    "e2e/test_kill_and_resume.py",
    "e2e/test_launch_hostfile.py",
    "e2e/test_launch_clusters.py",
    "e2e/test_documents.py",
)
"""Files of minutes. The first of them makes the demo, on which the last would wait if both began at once."""


def pytest_configure() -> None:
    """Let every process of the tests compute with one thread, as two files at a time have the cores busy.

    And let Ctrl-C end it: a shell has what it starts in the background ignore that, with all that comes of it.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first and those of seconds last, else one worker ends minutes after the other.

    It takes pytest's ``--no-loadscope-reorder``: by itself xdist begins with the files of many tests, which are short.
    """
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FIRST)}
    units = Path(__file__).parent / "unit"

    def place(item: pytest.Item) -> int:
        return places.get(item.path, len(places) + item.path.is_relative_to(units))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Take back what an entry point that is called within a test does to logging: it is meant for a whole process."""
    logs = [logging.getLogger(name) for name in ("gptdist", "data_prep", "launch")]
    before = [(log.handlers, log.propagate, log.level) for log in logs]
    yield
    for log, (handlers, propagate, level) in zip(logs, before, strict=True):
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
