"""What is a spike and what is not."""

import json
import math
import random

import pytest

from gptdist.checkpoint.manifest import GuardRecord
from gptdist.config.guards import GuardsConfig
from gptdist.train.guards import GuardState

CONFIG = GuardsConfig(window_steps=20, min_steps=5, max_skips=2)


def after(losses: list[float], config: GuardsConfig = CONFIG) -> GuardState:
    """Return the state after steps with these losses, refused or not; the norm is always 1."""
    state = GuardState()
    for step, loss in enumerate(losses, 1):
        state.advance(config, step, state.judge(config, loss, 1.0))
    return state


def noisy(count: int, seed: int = 0) -> list[float]:
    draw = random.Random(seed)
    return [3.0 + draw.gauss(0.0, 0.1) for _ in range(count)]


def test_what_is_far_above_the_window_is_refused() -> None:
    refusal = after(noisy(20)).judge(CONFIG, 6.0, 1.0).refusal
    assert refusal is not None
    assert refusal.what == "loss"
    assert refusal.mean == pytest.approx(3.0, abs=0.1)
    assert refusal.z_score == pytest.approx((6.0 - 3.0) / 0.1, rel=0.3)
    assert str(refusal).startswith("loss 6 is ")
    assert after(noisy(20)).judge(CONFIG, 3.1, 2.0).refusal.what == "grad_norm"


@pytest.mark.parametrize(
    ("losses", "loss", "config"),
    [
        (noisy(20), 3.5, CONFIG),
        (noisy(20), 0.1, CONFIG),  # only upwards
        (noisy(4), 9.0, CONFIG),  # too few steps
        (noisy(20), 99.0, CONFIG.model_copy(update={"max_z_score": None})),
        ([3.0] * 20, 3.5, CONFIG),  # nothing varies: 0.02 x 3 is taken for the deviation
    ],
)
def test_what_is_not_a_spike(losses: list[float], loss: float, config: GuardsConfig) -> None:
    assert after(losses).judge(config, loss, 1.0).refusal is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_always_refused(value: float) -> None:
    config = GuardsConfig(max_z_score=None)
    assert str(GuardState().judge(config, value, 1.0).refusal) == f"loss is {value}"
    assert str(GuardState().judge(config, 1.0, value).refusal) == f"gradient norm is {value}"


def test_refused_steps_do_not_move_the_window() -> None:
    state = after([*noisy(20), 9.0, 9.0, 9.0])
    assert state.losses == noisy(20)
    assert state.skipped_steps == [21, 22, 23]
    assert state.is_too_much(CONFIG)
    assert not after([*noisy(20), 9.0, 9.0]).is_too_much(CONFIG)
    assert not after([*noisy(20), 9.0, 9.0, *noisy(20), 9.0]).is_too_much(CONFIG), "skips long ago do not count"


def test_the_record_brings_back_every_bit() -> None:
    state = after([*noisy(30), 9.0])
    record = GuardRecord.from_tree(json.loads(json.dumps(state.record().tree())))
    assert GuardState.of(record) == state
    assert len(state.losses) == 20


def test_the_defaults_leave_a_learning_run_alone() -> None:
    """A curve that falls by a power law with noise of 2 %, norms that vary by a factor: 20,000 steps, no alarm."""
    draw, config, state = random.Random(1), GuardsConfig(), GuardState()
    for step in range(1, 20_001):
        loss = (2.0 + 9.0 * step**-0.3) * (1 + draw.gauss(0.0, 0.02))
        verdict = state.judge(config, loss, math.exp(draw.gauss(0.0, 0.4)))
        assert verdict.refusal is None, f"step {step}: {verdict.refusal}"
        state.advance(config, step, verdict)
