"""A stop signal is remembered; a second Ctrl-C interrupts at once."""

import os
import signal

import pytest

from gptdist.train.stop_signal import SIGNALS, StopSignal


@pytest.fixture(autouse=True)
def _handlers_as_before():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_is_remembered(number: signal.Signals) -> None:
    stop = StopSignal()
    stop.listen()
    assert not stop.reason
    os.kill(os.getpid(), number)
    assert stop.reason
    assert stop.number == number


def test_second_interrupt_is_immediate() -> None:
    stop = StopSignal()
    stop.listen()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
