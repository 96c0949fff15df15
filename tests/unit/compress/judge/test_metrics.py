"""Names of suites and gates, and what is past a gate."""

import pytest

from gptdist.compress.judge.metrics import METRICS, SUITES, Gate, parse_gates, parse_suites
from gptdist.errors import ConfigError


def test_suites_are_in_their_own_order() -> None:
    assert parse_suites("cloze,loss") == ("loss", "cloze")
    assert parse_suites("all") == SUITES
    assert {one.suite for one in METRICS} == {*SUITES, "fidelity"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("loss,lost", "--suite: 'lost' is unknown; take of loss, cloze"), (",", "--suite: names nothing")],
)
def test_unknown_suites_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_suites(text)


def test_a_gate_looks_in_the_direction_that_is_worse() -> None:
    lower, higher = parse_gates(["bits_per_byte=0.02", "cloze_accuracy=0"])
    assert lower.failure({"bits_per_byte": 1.0}, {"bits_per_byte": 1.01}) is None
    assert lower.failure({"bits_per_byte": 1.0}, {"bits_per_byte": 0.5}) is None
    found = lower.failure({"bits_per_byte": 1.0}, {"bits_per_byte": 1.03})
    assert found == "bits_per_byte: 1 became 1.03, worse by 0.03; 0.02 is allowed"
    assert higher.failure({"cloze_accuracy": 0.5}, {"cloze_accuracy": 0.6}) is None
    assert higher.failure({"cloze_accuracy": 0.5}, {"cloze_accuracy": 0.4}) is not None


def test_what_was_not_measured_or_is_no_number_does_not_pass() -> None:
    gate = Gate("bits_per_byte", 0.1)
    assert "not measured of both; add its suite" in str(gate.failure({"bits_per_byte": 1.0}, {}))
    assert gate.failure({"bits_per_byte": 1.0}, {"bits_per_byte": float("nan")}) is not None


def test_gates_that_are_none_are_refused_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_gates(["parameters=1", "bits_per_byte=-1", "bits_per_byte", "mean_kl=inf"])
    lines = caught.value.problems
    assert len(lines) == 4
    assert lines[0].startswith("--max-regress: 'parameters' is no metric with a better and a worse; take of validation")
    assert lines[1] == "--max-regress: 'bits_per_byte=-1' names no number from 0 up; write bits_per_byte=0.02"
