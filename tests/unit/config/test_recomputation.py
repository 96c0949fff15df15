"""Recomputation within a budget: what is chosen, what is refused."""

from itertools import product
from typing import Any

import pytest

from gptdist.config.activations import RankShare
from gptdist.config.memory import MemoryConfig
from gptdist.config.model import ModelConfig
from gptdist.config.parallel import ParallelConfig
from gptdist.config.recomputation import (
    Recomputed,
    StageActivations,
    budget_problems,
    cheapest,
    least_bytes,
    recomputed,
    tell,
)
from gptdist.config.run import RunConfig

MODEL = ModelConfig(num_layers=4, hidden_size=64, num_attention_heads=4, seq_length=64, vocab_size=500)
SHARE = RankShare(micro_batch_size=2, seq_length=64)
WITH_SCORES = MODEL.model_copy(update={"attention_dropout": 0.1})
ONE_RANK = ParallelConfig()


def all_ways(layers: int) -> list[Recomputed]:
    """Return everything that ``layers`` can compute again."""
    ways = []
    for full in range(layers + 1):
        rest = range(full, layers)
        for kinds in product(range(4), repeat=len(rest)):
            attention = frozenset(layer for layer, kind in zip(rest, kinds, strict=True) if kind & 1)
            mlp = frozenset(layer for layer, kind in zip(rest, kinds, strict=True) if kind & 2)
            ways.append(Recomputed(full, attention, mlp))
    return ways


@pytest.mark.parametrize("model", [MODEL, WITH_SCORES], ids=["fused", "with-scores"])
@pytest.mark.parametrize("stages", [1, 2])
def test_the_choice_is_near_the_cheapest_of_all(model: ModelConfig, stages: int) -> None:
    parallel = ParallelConfig(pipeline_parallel_size=stages)
    stage = StageActivations.of(model, parallel, SHARE, 0)
    ways = all_ways(4 // stages)
    low, high = least_bytes(stage), stage.peak(Recomputed())
    one_part = stage.flops(Recomputed(mlp=frozenset({0})))
    assert low == min(stage.peak(way) for way in ways)
    for part in range(21):
        budget = low + (high - low) * part // 20
        again = cheapest(stage, budget)
        assert again is not None
        assert stage.peak(again) <= budget
        best = min(stage.flops(way) for way in ways if stage.peak(way) <= budget)
        assert stage.flops(again) < best + one_part, (part, again)
    assert cheapest(stage, low - 1) is None
    assert cheapest(stage, high) == Recomputed()


def test_early_stages_of_a_pipeline_compute_more_again() -> None:
    parallel = ParallelConfig(pipeline_parallel_size=2)
    first, last = (StageActivations.of(MODEL, parallel, SHARE, stage) for stage in (0, 1))
    assert (first.in_flight, last.in_flight) == (2, 1)
    budget = last.peak(Recomputed())
    again = cheapest(first, budget)
    assert cheapest(last, budget) == Recomputed()
    assert again is not None
    assert first.flops(again) > 0


def test_layers_say_what_they_do_as_told() -> None:
    for how, expected in {
        "none": Recomputed(),
        "attention": Recomputed(attention=frozenset(range(2))),
        "mlp": Recomputed(mlp=frozenset(range(2))),
    }.items():
        memory = MemoryConfig(recompute=how)  # type: ignore[arg-type]  # the literals above
        assert recomputed(memory, MODEL, ParallelConfig(pipeline_parallel_size=2), SHARE, 1) == expected
    three = MemoryConfig(recompute="full", recompute_layers=3)
    parallel = ParallelConfig(pipeline_parallel_size=2)
    assert [recomputed(three, MODEL, parallel, SHARE, stage).full_layers for stage in (0, 1)] == [2, 1]


def test_what_is_done_is_told() -> None:
    stage = StageActivations.of(MODEL, ONE_RANK, SHARE, 0)
    again = Recomputed(full_layers=2, mlp=frozenset({3}))
    memory = MemoryConfig(recompute="budget", activation_bytes=stage.peak(again))
    (line,) = tell(memory, MODEL, ONE_RANK, SHARE)
    assert f"bytes at once of {memory.activation_bytes:,}; computed again: " in line
    assert again.describe(4) == "all of layers 4-5, mlp of layers 7"
    assert Recomputed().describe(0) == "nothing"


def test_too_small_a_budget_names_the_least() -> None:
    least = least_bytes(StageActivations.of(MODEL, ONE_RANK, SHARE, 0))
    fits = MemoryConfig(recompute="budget", activation_bytes=least)
    assert budget_problems(fits, MODEL, ONE_RANK, SHARE) == []
    (problem,) = budget_problems(MemoryConfig(recompute="budget", activation_bytes=least - 1), MODEL, ONE_RANK, SHARE)
    assert problem.startswith(
        f"memory.activation_bytes: {least - 1:,} is less than the {least:,} that are kept even if"
    )
    stages = ParallelConfig(pipeline_parallel_size=4)
    (problem,) = budget_problems(MemoryConfig(recompute="budget", activation_bytes=1), MODEL, stages, SHARE)
    assert " that are kept on stage 0 even if" in problem


def problems_of(tree: dict[str, Any]) -> list[str]:
    return RunConfig.from_tree(tree).problems()


def test_a_run_is_refused_before_it_starts() -> None:
    tree: dict[str, Any] = {
        "name": "test",
        "model": MODEL.tree(),
        "data": {"tokenizer": "t", "sources": [{"path": "d", "weight": 1.0}]},
        "batch": {"global_batch_size": 2, "micro_batch_size": 2},
        "training": {"train_steps": 1, "device": "cpu"},
        "memory": {"recompute": "budget", "activation_bytes": 1000},
        "checkpoints": {"exportable": False},
    }
    (problem,) = problems_of(tree)
    least = least_bytes(StageActivations.of(MODEL, ONE_RANK, SHARE, 0))
    assert f"is less than the {least:,} that" in problem
    tree["memory"]["activation_bytes"] = least
    assert problems_of(tree) == []
    experts = {**tree["model"], "moe": {"num_experts": 2}, "add_bias": False}
    (problem,) = problems_of({**tree, "model": experts})
    assert problem.startswith("memory.recompute: budget cannot count activations of model.moe")


@pytest.mark.parametrize(
    ("memory", "problem"),
    [
        ({"recompute": "budget"}, "memory.activation_bytes: missing; recompute budget needs the bytes"),
        ({"activation_bytes": 5}, "memory.activation_bytes: belongs to recompute budget, not none; remove it"),
        ({"recompute": "budget", "activation_bytes": 0}, "memory.activation_bytes: must be at least 1, got 0"),
        (
            {"recompute": "budget", "activation_bytes": 9, "recompute_layers": 1},
            "memory.recompute_layers: belongs to recompute full, not budget; remove it",
        ),
    ],
)
def test_keys_that_do_not_go_together(memory: dict[str, Any], problem: str) -> None:
    (found,) = MemoryConfig.from_tree(memory).problems(4)
    assert found.startswith(problem)
