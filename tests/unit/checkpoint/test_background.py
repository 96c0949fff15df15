"""One thing at a time in the background, the newest of what waits."""

import threading

import pytest

from gptdist.checkpoint.background import Background


def test_what_waits_gives_way_to_newer_work() -> None:
    begun, may_go, done = threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        begun.set()
        assert may_go.wait(10)
        done.append(item)

    background = Background("test", work)
    assert background.settle(), "nothing to do"
    assert background.give(1) is None
    assert begun.wait(10)
    assert background.give(2) is None
    assert background.give(3) == 2
    assert not background.settle(0.01)
    may_go.set()
    assert background.settle(10)
    assert done == [1, 3]
    background.give(4)
    assert background.settle(10)
    assert done == [1, 3, 4]


def test_a_bug_keeps_its_traceback_and_the_next_one_is_worked_on(caplog: pytest.LogCaptureFixture) -> None:
    done = []

    def work(item: int) -> None:
        done.append(1 // item)

    background = Background("division", work)
    background.give(0)
    assert background.settle(10)
    background.give(1)
    assert background.settle(10)
    assert done == [1]
    assert "division failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
