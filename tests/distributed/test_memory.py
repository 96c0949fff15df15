"""What a rank holds by ZeRO stage, counted tensor by tensor, against the formula."""

from pathlib import Path
from typing import Any

import pytest

from gptdist.config.run import RunConfig
from gptdist.mesh.layout import Layout
from gptdist.model import memory
from gptdist.model.rank_weights import RankWeights
from tests.support.datasets import GPT2, LLAMA, MODERN, MOE, SHAPES, make_run_config, run_tree
from tests.support.jobs import open_run
from tests.support.kept import peak_tensor_bytes, tensor_bytes
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

SPARE = 0.02
"""Largest distance of states that are counted from the formula: token lengths, counters, paddings of a part."""

WIDE = {"hidden_size": 192, "vocab_size": 2000, "num_layers": 3}
CASES: list[tuple[TestedLayout, dict[str, Any], str]] = [
    (TestedLayout(1, 1, 1), GPT2, "fp32"),
    (TestedLayout(2, 0, 1), LLAMA, "fp32"),
    (TestedLayout(2, 1, 1), GPT2, "fp32"),
    (TestedLayout(2, 1, 1), LLAMA, "bf16"),
    (TestedLayout(2, 2, 1), MODERN, "fp32"),
    (TestedLayout(2, 2, 1), GPT2, "bf16"),
    (TestedLayout(2, 3, 1), LLAMA, "fp32"),
    (TestedLayout(2, 3, 1), GPT2, "bf16"),
    (TestedLayout(2, 1, 2), GPT2, "fp32"),
    (TestedLayout(2, 1, 1, pipeline_parallel_size=2), LLAMA | {"num_layers": 4}, "fp32"),
]
PEAK_SPARE = 0.10
"""Largest distance of the formula's peak from what is counted. At ZeRO stage 2 most of it may be needed: gloo's thread
sometimes holds the flat copy of the gradients until a rank has copied its part out of them."""

LARGE = {"hidden_size": 192, "vocab_size": 2000, "seq_length": 64}
PEAK_CASES: list[tuple[TestedLayout, dict[str, Any], dict[str, Any]]] = [
    (TestedLayout(1, 1, 1), LLAMA, {}),
    (TestedLayout(1, 1, 1), LLAMA, {"batch": {"global_batch_size": 1, "micro_batch_size": 1}}),
    (TestedLayout(2, 2, 1), MOE, {}),
    (TestedLayout(2, 2, 1, expert_parallel_size=2), MOE, {"batch": {"global_batch_size": 4}}),
    (TestedLayout(2, 1, 1), LLAMA, {"optimizer": {"kind": "muon"}}),
    (TestedLayout(2, 0, 2), GPT2, {"optimizer": {"kind": "adafactor"}}),
    (TestedLayout(2, 2, 1), GPT2, {"memory": {"recompute": "full"}}),
    (TestedLayout(2, 2, 1), GPT2, {"batch": {"global_batch_size": 16, "micro_batch_size": 8}}),
    (TestedLayout(2, 1, 1), GPT2, {"training": {"precision": "bf16"}}),
    (TestedLayout(2, 2, 1), LLAMA, {"training": {"precision": "bf16"}}),
    (TestedLayout(2, 3, 1), LLAMA, {"training": {"precision": "bf16"}}),
]
OFFLOADED = {"offload_optimizer": "cpu"}
PRUNED = MODERN | {"num_layers": 4, "layer_shapes": SHAPES}
SPLIT = TestedLayout(2, 2, 1, expert_parallel_size=2)
KINDS: list[tuple[TestedLayout, dict[str, Any], str, str]] = [
    (TestedLayout(2, 0, 2), GPT2, "fp32", "adafactor"),
    (TestedLayout(2, 3, 1), LLAMA, "fp32", "adafactor"),
    (TestedLayout(2, 1, 2), PRUNED, "fp32", "adamw"),
    (TestedLayout(2, 1, 2), MOE, "fp32", "adamw"),
    (TestedLayout(2, 3, 1), MOE, "bf16", "adamw"),
    (TestedLayout(2, 0, 1, expert_parallel_size=2), MOE, "fp32", "adamw"),
    (SPLIT, MOE, "fp32", "adamw"),
    (SPLIT, MOE, "fp32", "adafactor"),
    (TestedLayout(2, 0, 2), LLAMA, "fp32", "muon"),
    (TestedLayout(2, 2, 1), MOE, "fp32", "muon"),
    (TestedLayout(2, 3, 1), LLAMA, "bf16", "muon"),
]


def held_after_a_step(tree: dict[str, Any]) -> tuple[int, int]:
    """Return bytes of tensors that a step has left beyond those before the model, and the pipeline's stage."""
    from gptdist.train.loop import train_step

    before = tensor_bytes()
    run = open_run(tree)
    run.state.advance(train_step(run))
    return tensor_bytes() - before, run.mesh.place.pp_rank


@pytest.mark.parametrize(
    ("layout", "model", "precision", "kind"),
    [(*case, "adamw") for case in CASES] + KINDS,
)
def test_states_are_those_of_the_formula(
    layout: TestedLayout, model: dict[str, Any], precision: str, kind: str, tmp_path: Path
) -> None:
    tree = run_tree(
        tmp_path,
        model=model | WIDE | {"num_layers": model.get("num_layers", 2)},
        training={"precision": precision},
        optimizer={"kind": kind},
        **layout.sections(),
    )
    config = RunConfig.from_tree(tree)
    for held, stage in run_ranks(layout.world_size, held_after_a_step, tree):
        expected = memory.step_memory(
            config,
            Layout.of(config.parallel, layout.world_size),
            on_gpu=True,  # buffers count whole, as tensors do
            value_bytes=4 if precision == "fp32" else 2,
            stage=stage,
        )
        assert held == pytest.approx(expected.states + expected.host, rel=SPARE)


@pytest.mark.parametrize(
    ("zero_stage", "precision", "offload"),
    [
        (1, "fp32", OFFLOADED),
        (1, "bf16", OFFLOADED),
        (2, "fp32", OFFLOADED),
        (2, "bf16", OFFLOADED),
        (3, "fp32", OFFLOADED),
        (3, "bf16", OFFLOADED | {"offload_parameters": "cpu"}),
        (3, "fp32", {"offload_parameters": "cpu"}),
    ],
)
def test_what_is_offloaded_is_in_the_machines_memory(
    zero_stage: int, precision: str, offload: dict[str, str], tmp_path: Path
) -> None:
    """On a CPU both memories are one: what is counted is the sum; what is on the device is by hand."""
    layout = TestedLayout(2, zero_stage, 1)
    tree = run_tree(
        tmp_path, model=LLAMA | WIDE, training={"precision": precision}, memory=offload, **layout.sections()
    )
    config, value_bytes = RunConfig.from_tree(tree), 4 if precision == "fp32" else 2
    parallel = Layout.of(config.parallel, 2)
    expected = memory.step_memory(config, parallel, on_gpu=True, value_bytes=value_bytes)
    for held, peak, _ in run_ranks(2, held_and_peak, tree):
        assert held == pytest.approx(expected.states + expected.host, rel=SPARE)
        on_cpu = memory.step_memory(config, parallel, on_gpu=False, value_bytes=value_bytes, whole_buffers=True)
        assert on_cpu.peak.total + on_cpu.host == pytest.approx(peak, rel=PEAK_SPARE)
    weights = RankWeights.of(config.model, parallel, 0)
    values, largest = weights.num_values, max(weights.sizes)
    if zero_stage < 3:
        assert expected.states == value_bytes * (values + largest)
        return
    kept_whole = sum(size for size in weights.sizes if size < memory.PERSISTENT)
    parts = values / 2 if offload == OFFLOADED else 0  # of weights; those that are offloaded themselves come for use
    moments = 16 * values / 2 if "offload_optimizer" not in offload else 0  # and masters, and gradients
    assert expected.states == value_bytes * (parts + kept_whole + values) + moments


def held_and_peak(tree: dict[str, Any]) -> tuple[int, int, int]:
    """Return both of the two below."""
    from gptdist.train.loop import train_step

    before = tensor_bytes()
    run = open_run(tree)
    run.state.advance(train_step(run))
    held = tensor_bytes() - before
    peak = peak_tensor_bytes(lambda: run.state.advance(train_step(run))) - before
    return held, peak, run.mesh.place.pp_rank


def peak_of_a_step(tree: dict[str, Any]) -> tuple[int, int]:
    """Return the most bytes of tensors in a step, beyond those before the model, and the pipeline's stage.

    Of three steps the one that needs least: in some, gloo's thread lets go of a tensor a moment later than it could.
    """
    from gptdist.train.loop import train_step

    before = tensor_bytes()
    run = open_run(tree)
    run.state.advance(train_step(run))  # the first makes the moments
    peaks = [peak_tensor_bytes(lambda: run.state.advance(train_step(run))) for _ in range(3)]
    return min(peaks) - before, run.mesh.place.pp_rank


@pytest.mark.parametrize(
    ("layout", "model", "changes"),
    [
        (TestedLayout(2, zero_stage, tensor_parallel_size), model, {})
        for zero_stage in range(4)
        for tensor_parallel_size in (1, 2)
        for model in (GPT2, LLAMA)
    ]
    + PEAK_CASES,
)
def test_the_most_that_a_step_holds_is_that_of_the_formula(
    layout: TestedLayout, model: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    tree = run_tree(tmp_path, model=model | LARGE | {"num_layers": model["num_layers"] * 2}, **layout.sections())
    tree |= {section: {**tree.get(section, {}), **values} for section, values in changes.items()}
    config = RunConfig.from_tree(tree)
    for held, stage in run_ranks(layout.world_size, peak_of_a_step, tree):
        expected = memory.step_memory(
            config,
            Layout.of(config.parallel, layout.world_size),
            on_gpu=False,
            value_bytes=2 if config.training.precision == "bf16" else 4,
            stage=stage,
            whole_buffers=True,
        )
        assert expected.peak.total + expected.host == pytest.approx(held, rel=PEAK_SPARE)


def test_moments_of_the_optimizer_are_counted(tmp_path: Path) -> None:
    found = {}
    for kind, precision in (("adamw", "fp32"), ("adamw", "bf16"), ("lion", "bf16")):
        optimizer = {"kind": kind, "moment_precision": precision, "beta2": 0.95}
        config = make_run_config(tmp_path, optimizer=optimizer)
        layout = Layout.of(config.parallel, 1)
        values = RankWeights.of(config.model, layout, 0).num_values
        held = memory.step_memory(config, layout, on_gpu=False, value_bytes=4).update.optimizer
        found[kind, precision] = held / values
    assert found == {("adamw", "fp32"): 12.0, ("adamw", "bf16"): 8.0, ("lion", "bf16"): 6.0}


def test_the_formula_knows_the_losss_chunks() -> None:
    from gptdist.model.chunked_head import CHUNK_ELEMENTS

    assert memory.LOGITS == CHUNK_ELEMENTS
