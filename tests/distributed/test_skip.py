"""A step that is refused leaves every bit as it was, and those after it are the steps of a run that never met it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptdist.config.run import RunConfig
from tests.support.datasets import GPT2, run_tree
from tests.support.jobs import open_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

END = 7
GUARDS = {"window_steps": 8, "min_steps": 3}
DROPOUT = GPT2 | {"hidden_dropout": 0.1, "attention_dropout": 0.1}
"""The forward passes of a dump must not change what later steps draw."""


def bits(run: Any) -> str:
    """Return a digest of weights, master weights, moments and their step count on this rank."""
    import hashlib

    digest = hashlib.sha256(str(run.fragments.optimizer_step()).encode())
    for values in _held(run):
        digest.update(
            values.detach().contiguous().view(-1).numpy(force=True).tobytes()
            if values.dtype.itemsize == 4
            else values.detach().float().numpy(force=True).tobytes()
        )
    return digest.hexdigest()


def _held(run: Any) -> Iterator[Any]:
    yield from (getattr(local.parameter, "ds_tensor", local.parameter) for local in run.parameters)
    for fragment in run.fragments.all():
        yield from fragment.states.values()
    yield from (whole.values for whole in run.fragments.whole_states())


def skipped_and_never_met(tree: dict[str, Any], bad: dict[int, float]) -> dict[str, Any]:
    """Multiply gradients by ``bad[step]``; return what came of it, and of a run that passes those steps over."""
    from gptdist.train.build import build
    from gptdist.train.loop import train_step
    from gptdist.train.skip import record_skip
    from gptdist.train.stop_signal import StopSignal

    run = open_run(tree)
    for local in run.parameters:
        local.parameter.register_hook(lambda gradient: gradient * bad.get(run.state.step + 1, 1.0))
    found: dict[str, Any] = {"refused": [], "skipped": [], "never": []}
    while run.state.step < END:
        before = bits(run)
        result = train_step(run)
        run.state.advance(result)
        if result.refusal is not None:
            found["refused"].append((f"{run.state.step}: {result.refusal}", bits(run) == before))
            record_skip(run, result)
        else:
            assert bits(run) != before, "a good step changes the weights"
            found["skipped"].append((result.loss, result.grad_norm, result.lr))

    other = build(
        RunConfig.from_tree(tree | {"run_dir": tree["run_dir"] + "-other"}), run.mesh, run.device, StopSignal()
    )
    while other.state.step < END:
        while other.state.step + 1 in bad:
            other.state.step += 1
            other.state.consumed_samples += run.config.batch.global_batch_size
        result = train_step(other)
        other.state.advance(result)
        found["never"].append((result.loss, result.grad_norm, result.lr))
    found["same"] = bits(run) == bits(other)
    return found


LAYOUTS = [
    (TestedLayout(1, 0, 1), "fp32"),
    (TestedLayout(1, 1, 1), "fp32"),
    (TestedLayout(2, 0, 1), "fp32"),
    (TestedLayout(2, 1, 1), "fp32"),
    (TestedLayout(2, 2, 1), "fp32"),
    (TestedLayout(2, 3, 1), "fp32"),
    (TestedLayout(2, 1, 1), "bf16"),
    (TestedLayout(2, 2, 1), "bf16"),
    (TestedLayout(2, 3, 1), "bf16"),
    (TestedLayout(2, 1, 2), "fp32"),
    (TestedLayout(2, 1, 1, pipeline_parallel_size=2), "fp32"),
    (TestedLayout(4, 3, 2), "fp32"),
]
ADAFACTOR = [(TestedLayout(2, 0, 1), "fp32", "adafactor"), (TestedLayout(2, 2, 1), "bf16", "adafactor")]


@pytest.mark.parametrize(("layout", "precision", "kind"), [(*each, "adamw") for each in LAYOUTS] + ADAFACTOR, ids=str)
def test_a_skipped_step_leaves_no_trace(layout: TestedLayout, precision: str, kind: str, tmp_path: Path) -> None:
    tree = run_tree(
        tmp_path,
        model=DROPOUT,
        training={"precision": precision},
        guards=GUARDS,
        optimizer={"kind": kind},
        **layout.sections(),
    )
    for found in run_ranks(layout.world_size, skipped_and_never_met, tree, {4: 1e4, 5: float("nan")}):
        (spike, is_unchanged), (not_finite, is_still_unchanged) = found["refused"]
        assert spike.startswith("4: gradient norm ")
        assert "standard deviations above" in spike
        assert not_finite == "5: gradient norm is inf"
        assert is_unchanged
        assert is_still_unchanged
        assert found["skipped"] == found["never"], "floats are compared bit for bit"
        assert found["same"]
    lines = (tmp_path / "run/ledger.jsonl").read_text().splitlines()
    skips = [event for event in map(json.loads, lines) if event["event"] == "skip"]
    assert [(skip["step"], skip["first_sample"], skip["last_sample"]) for skip in skips] == [(4, 24, 31), (5, 32, 39)]
    assert skips[0]["z_score"] > 10.0
    assert skips[1]["value"] == "inf"


def poisoned(tree: dict[str, Any], first: int, value: float) -> tuple[str, int]:
    """Train with gradients multiplied by ``value`` from step ``first`` on; return what ended the run, and the step."""
    from gptdist.errors import TrainingError
    from gptdist.train.loop import train

    run = open_run(tree)
    parameter = run.parameters[-1].parameter
    parameter.register_hook(lambda gradient: gradient * value if run.state.step + 1 >= first else gradient)
    try:
        train(run)
    except TrainingError as error:
        return str(error), run.state.step
    return "", run.state.step


@pytest.mark.parametrize("layout", [TestedLayout(1, 0, 1), TestedLayout(2, 1, 1), TestedLayout(2, 3, 1)], ids=str)
def test_too_many_end_the_run_and_nothing_spoilt_is_saved(layout: TestedLayout, tmp_path: Path) -> None:
    tree = run_tree(
        tmp_path, intervals={"save_steps": 1}, guards=GUARDS | {"max_skips": 1, "max_rewinds": 0}, **layout.sections()
    )
    for first in (1, 3):  # before there are moments, and after
        for said, step in run_ranks(layout.world_size, poisoned, tree, first, float("nan")):
            assert said.startswith(f"step {first + 1}: gradient norm is inf, on samples {8 * first} to {8 * first + 7}")
            assert "2 of the last 8 steps were skipped, 1 may be" in said
            assert step == first + 1
        if first == 1:
            assert run_ranks(layout.world_size, poisoned, tree, 9, 1.0)[0] == ("", 6), "the same command resumes"
            rows = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
            losses = [row["loss"] for row in rows if row["kind"] == "train"]
            assert losses[-1] < losses[0]
            shutil.rmtree(tmp_path / "run")
