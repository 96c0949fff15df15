"""The learning rate is a pure function of the step."""

import pytest

from gptdist.checkpoint.identity import changes
from gptdist.config.optimization import OptimizerConfig, ScheduleConfig
from gptdist.train.schedule import learning_rate

OPTIMIZER = OptimizerConfig(lr=1.0)


def _rates(schedule: ScheduleConfig, steps: int = 100) -> list[float]:
    return [learning_rate(step, OPTIMIZER, schedule, train_steps=100) for step in range(steps)]


def test_cosine_rises_linearly_and_falls_to_its_lowest() -> None:
    rates = _rates(ScheduleConfig(warmup_steps=10, min_lr_ratio=0.1), steps=140)
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.55)
    assert rates[100:] == pytest.approx([0.1] * 40)
    assert rates[10:100] == sorted(rates[10:100], reverse=True)


def test_decay_may_end_before_or_behind_the_run() -> None:
    assert _rates(ScheduleConfig(decay_steps=50))[50] == pytest.approx(0.1)
    assert _rates(ScheduleConfig(decay_steps=200))[99] > 0.5


def test_constant_stays() -> None:
    assert set(_rates(ScheduleConfig(kind="constant", warmup_steps=5))[5:]) == {1.0}


def test_no_warmup_starts_at_the_top() -> None:
    assert _rates(ScheduleConfig())[0] == pytest.approx(1.0)


def test_changes_are_named_was_and_now() -> None:
    was = {"seed": 1, "optimizer": {"lr": 1e-3, "eps": 1e-8}, "gone": True}
    now = {"seed": 1, "optimizer": {"lr": 5e-4, "eps": 1e-8}, "new": [1]}
    assert changes(was, now) == ["gone: True → None", "new: None → [1]", "optimizer.lr: 0.001 → 0.0005"]
    assert changes(was, was) == []
