"""The demo in small: every step of it for real, the kill and the changed layout included."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from gptdist.model.checkpoint_size import checkpoint_bytes
from gptdist.telemetry.ledger import read_json_lines
from launch.preflight.disk import kept_checkpoints
from tests.e2e.conftest import SMALL_RUN
from tests.support.ranks import repository


def test_summary_has_everything(demo) -> None:
    _, output = demo
    summary = output.partition("== Summary")[2]
    for name in ("documents prepared", "tokens prepared", "loss at the start", "loss at the kill", "loss at the end"):
        assert re.search(rf"{name}.* [\d,.]+", summary), summary
    assert re.search(r"validation +\d\.\d{4} bits/byte", summary)
    assert re.search(r"training speed \(median\) +[\d,]+ tokens/s", summary)


def test_it_was_killed_and_went_on_from_the_checkpoint_with_tensor_parallelism(demo) -> None:
    folder, output = demo
    assert ">>> kill -9 of all processes" in output
    assert re.search(r"^PASS .*", output.partition("$ gptdist audit runs/demo-cpu")[2], re.MULTILINE)
    assert "config changed since the checkpoint: parallel.tensor_parallel_size: 1 → 2" in output
    records = [r for r in read_json_lines(folder / "runs/demo-cpu/metrics.jsonl") if r["kind"] == "train"]
    first = {r["step"]: r["loss"] for r in records if r["attempt"] == 1}
    second = {r["step"]: r["loss"] for r in records if r["attempt"] > 1}
    again = sorted(first.keys() & second.keys())
    assert again, "the kill lost at least one logged step"
    assert [second[step] for step in again] == pytest.approx([first[step] for step in again], abs=1e-4)
    assert second[60] < first[1] - 0.5, "the loss visibly falls"


def test_a_killed_rank_was_started_anew_by_the_launch_itself(demo) -> None:
    folder, output = demo
    assert ">>> kill -9 of one rank, process" in output
    (ended,) = [event for event in read_json_lines(folder / "runs/demo-cpu/ledger.jsonl") if event["event"] == "ended"]
    assert (ended["attempt"], ended["reason"]) == (2, "killed")
    assert "killed: rank" in output.partition("$ gptdist audit runs/demo-cpu")[2]
    records = [r for r in read_json_lines(folder / "runs/demo-cpu/metrics.jsonl") if r["kind"] == "train"]
    second, third = ({r["step"]: r["loss"] for r in records if r["attempt"] == attempt} for attempt in (2, 3))
    assert third[60]
    assert all(third[step] == second[step] for step in second.keys() & third.keys()), "bit for bit"


def test_its_plan_is_beside_what_it_measured(demo) -> None:
    _, output = demo
    shown = output.partition("$ gptdist plan --from runs/demo-cpu")[2]
    assert "2 ranks = data 1 x tensor 2 of cpu" in shown
    (line,) = re.findall(r"memory of a rank +([\d.]+) GiB +([\d.]+) GiB", shown)
    measured, planned = map(float, line)
    assert planned == pytest.approx(measured, rel=0.15), "most of it is the interpreter and torch"


def test_numbers_go_to_tensorboard_too(demo) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = demo
    events = EventAccumulator(str(folder / "runs/demo-cpu/tensorboard"))
    events.Reload()
    assert {"train/loss", "train/lr", "train/tokens_per_second", "validation/bits_per_byte"} <= set(
        events.Tags()["scalars"]
    )
    assert events.Scalars("train/loss")[-1].step == 60


def test_the_exported_folder_is_checked(demo) -> None:
    folder, output = demo
    parity = json.loads((folder / "export/demo-cpu/export.json").read_text())["parity"]
    assert parity["max_abs_difference"] < 1e-3
    assert parity["argmax_agreement"] > 0.99
    assert "whole  export/demo-cpu" in output, "every file has its hash"
    baseline = json.loads((folder / "export/demo-cpu/gptdist/baseline.json").read_text())
    assert f"{baseline['bits_per_byte']:.4f} bits/byte ({baseline['loss']:.4f} nats/token)" in output, "as evaluated"
    assert "def __init__(self" in output.partition("continues a prompt")[2], "transformers printed a continuation"


def test_checkpoints_verify_and_a_flipped_bit_is_found(demo) -> None:
    folder, _ = demo
    argv = [sys.executable, "-m", "gptdist.cli.main", "checkpoint"]
    listed = subprocess.run([*argv, "list", "runs/demo-cpu"], cwd=folder, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["step", "60", "40", "20"]
    subprocess.run([*argv, "verify", "runs/demo-cpu"], cwd=folder, check=True)
    shutil.copytree(folder / "runs/demo-cpu", folder / "runs/damaged")
    path = folder / "runs/damaged/checkpoints/step_00000020/rank_00001.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)
    found = subprocess.run([*argv, "verify", "runs/damaged"], cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert re.search(r"rank_00001.safetensors: content has sha256 \w+, the manifest says", found.stderr)


def test_a_checkpoint_takes_the_room_that_is_planned_for_it(demo) -> None:
    folder, _ = demo
    config = load_config(RunConfig, repository() / "configs" / "runs" / "demo-cpu.yaml", SMALL_RUN)
    steps = sorted((folder / "runs/demo-cpu/checkpoints").glob("step_*"))
    assert len(steps) == kept_checkpoints(config)
    for step in steps:
        taken = sum(path.stat().st_size for path in step.rglob("*") if path.is_file())
        # Beyond tensors: names, shapes and digests, which matter only beside a model as small as this.
        assert checkpoint_bytes(config) <= taken < 1.5 * checkpoint_bytes(config)


def test_generate_and_evaluate_by_hand(demo) -> None:
    folder, _ = demo
    argv = [sys.executable, "-m", "gptdist.cli.main"]
    text = subprocess.run(
        [*argv, "generate", "runs/demo-cpu", "--prompt", "import ", "--max-new-tokens", "5", "--greedy"],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert text.startswith("import ")
    table = subprocess.run(
        [*argv, "evaluate", "runs/demo-cpu/checkpoints/step_00000040"],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert re.search(r"mixture +\d\.\d{4} +\d\.\d{4}", table)
