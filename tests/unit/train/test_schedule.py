"""The learning rate is a pure function of the step."""

import pytest

from gptdist.checkpoint.identity import changes
from gptdist.config.optimization import OptimizerConfig, ScheduleConfig
from gptdist.train.schedule import Position, learning_rate

OPTIMIZER = OptimizerConfig(lr=1.0)
STEP_TOKENS = 50


def _rates(schedule: ScheduleConfig, steps: int = 100) -> list[float]:
    positions = [Position(step, step * STEP_TOKENS, STEP_TOKENS) for step in range(steps)]
    return [
        learning_rate(position, OPTIMIZER, schedule, train_steps=100, train_tokens=100 * STEP_TOKENS)
        for position in positions
    ]


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


def test_linear_falls_to_its_lowest() -> None:
    rates = _rates(ScheduleConfig(kind="linear", warmup_steps=20, min_lr_ratio=0.2), steps=120)
    assert rates[20] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.6)
    assert rates[100:] == pytest.approx([0.2] * 20)


def test_inverse_square_root_halves_with_four_times_the_steps() -> None:
    rates = _rates(ScheduleConfig(kind="inverse_sqrt", warmup_steps=10, min_lr_ratio=0.4))
    assert [rates[step] for step in (9, 10, 40)] == pytest.approx([1.0, 1.0, 0.5])
    assert rates[90] == pytest.approx(0.4)


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.55), ("cosine", 0.55), ("one_minus_sqrt", 0.3636)])
def test_warm_up_stable_cool_down(shape: str, middle: float) -> None:
    schedule = ScheduleConfig(kind="wsd", warmup_steps=10, cooldown_steps=30, cooldown_shape=shape)
    rates = _rates(schedule, steps=110)
    assert rates[9:71] == pytest.approx([1.0] * 62)
    assert rates[85] == pytest.approx(middle, abs=1e-4)
    assert rates[100:] == pytest.approx([0.1] * 10)
    assert _rates(ScheduleConfig(kind="wsd"))[80:82] == pytest.approx([1.0, 0.955]), "a fifth by default"


@pytest.mark.parametrize("kind", ["cosine", "linear", "inverse_sqrt", "wsd", "constant"])
def test_tokens_say_the_same_as_steps(kind: str) -> None:
    has_end = kind not in ("inverse_sqrt", "constant")
    tokens = ScheduleConfig(
        kind=kind, warmup_tokens=10 * STEP_TOKENS, decay_tokens=80 * STEP_TOKENS if has_end else None
    )
    steps = ScheduleConfig(kind=kind, warmup_steps=10, decay_steps=80 if has_end else None)
    assert tokens.problems(100, 100 * STEP_TOKENS) == steps.problems(100, 100 * STEP_TOKENS) == []
    assert _rates(tokens) == pytest.approx(_rates(steps))


def test_tokens_do_not_depend_on_the_batch() -> None:
    """Two steps of half the size end where one whole step does."""
    schedule = ScheduleConfig(warmup_tokens=1000, decay_tokens=4000)
    rates = [
        learning_rate(Position(step, 2000, size), OPTIMIZER, schedule, train_steps=9, train_tokens=9000)
        for step, size in ((40, 50), (80, 25))
    ]
    assert rates[0] == rates[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_tokens": 10, "decay_steps": 20}, "schedule.decay_steps: in steps, while another length is in tokens"),
        ({"warmup_tokens": 5000}, "schedule.warmup_tokens: must be at least 0 and below the end of the decay (5000)"),
        ({"cooldown_steps": 5}, "schedule.cooldown_steps: belongs to kind wsd, not cosine; remove it"),
        ({"kind": "wsd", "cooldown_steps": 95, "warmup_steps": 10}, "schedule.cooldown_steps: must be above 0 and end"),
        ({"kind": "wsd", "warmup_steps": 90}, "schedule.cooldown_steps: must be above 0 and end with the decay (100)"),
        ({"kind": "constant", "decay_steps": 50}, "schedule.decay_steps: constant has no end; remove it"),
        ({"kind": "inverse_sqrt", "decay_tokens": 50}, "schedule.decay_tokens: inverse_sqrt has no end; remove it"),
        ({"min_lr_ratio": 1.5}, "schedule.min_lr_ratio: must be from 0 to 1, got 1.5"),
    ],
)
def test_what_makes_no_schedule_is_told(changes: dict[str, object], message: str) -> None:
    (problem,) = ScheduleConfig(**changes).problems(100, 100 * STEP_TOKENS)
    assert problem.startswith(message)


def test_changes_are_named_was_and_now() -> None:
    was = {"seed": 1, "optimizer": {"lr": 1e-3, "eps": 1e-8}, "gone": True}
    now = {"seed": 1, "optimizer": {"lr": 5e-4, "eps": 1e-8}, "new": [1]}
    assert changes(was, now) == ["gone: True → None", "new: None → [1]", "optimizer.lr: 0.001 → 0.0005"]
    assert changes(was, was) == []
