"""What every test leaves as it found it."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Take back what an entry point that is called within a test does to logging: it is meant for a whole process."""
    logs = [logging.getLogger(name) for name in ("gptdist", "data_prep", "launch")]
    before = [(log.handlers, log.propagate, log.level) for log in logs]
    yield
    for log, (handlers, propagate, level) in zip(logs, before, strict=True):
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
