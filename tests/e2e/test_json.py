"""``--json``: which commands have it, and that stdout is one document, of the same numbers as the text."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptdist.cli.completion_table import walk
from gptdist.cli.main import main, whole_parser

NO_TABLE = {
    "completion": "prints a script",
    "compress": "shows the output of the commands that it runs",
    "data adopt": "says in lines what was taken over",
    "demo": "shows the output of the commands that it runs",
    "distill run": "a training run; its numbers are in metrics.jsonl",
    "finetune": "a training run; its numbers are in metrics.jsonl",
    "generate": "prints text",
    "launch hostfile": "a training run; its numbers are in metrics.jsonl",
    "launch k8s": "a training run; its numbers are in metrics.jsonl",
    "launch local": "a training run; its numbers are in metrics.jsonl",
    "launch mpi": "a training run; its numbers are in metrics.jsonl",
    "launch slurm": "a training run; its numbers are in metrics.jsonl",
    "prep task": "prints nothing but errors",
    "schema": "prints JSON in any case",
}
"""Commands without a table, and what they print instead."""

SMALL = ["--calibration-sequences", "4", "--calibration-length", "64"]

COMMANDS = {
    "config configs/runs/demo-cpu.yaml": "num_parameters",
    "config --list": "configs",
    "checkpoint rewind runs/demo-cpu --to 40 --dry-run": "passed_over_samples",
    "prep report data/demo --html {made}/report.html": "html",
    "data verify data/demo/python data/demo/documents": "folders",
    "data show data/demo/python --document 3": "documents",
    "data plan configs/runs/demo-cpu.yaml": "sources",
    "data trace --run runs/demo-cpu --step 3": "samples",
    "scaling --flops 1e21": None,
    "plan configs/runs/demo-cpu.yaml --device cpu": "assumed",
    "plan configs/runs/demo-cpu.yaml --device cpu --search": "best",
    "plan --from runs/demo-cpu": None,
    "nodes runs/demo-cpu": "excluded",
    "audit runs/demo-cpu": "attempts",
    "checkpoint list runs/demo-cpu": "checkpoints",
    "checkpoint verify runs/demo-cpu": "checkpoints",
    "checkpoint show runs/demo-cpu": "tensors",
    "checkpoint average runs/demo-cpu --last 2 --output {made}/average": "sources",
    "checkpoint prune configs/runs/demo-cpu.yaml --dry-run": "stays",
    "export runs/demo-cpu --to hf --output {made}/hf --no-check": "num_parameters",
    "bundle verify {made}/hf": "is_whole",
    "import {made}/hf --output {made}/imported --no-check": "num_tensors",
    "evaluate runs/demo-cpu --eval-samples 4": "loss",
    "evaluate runs/demo-cpu --eval-samples 4 --suite size,loss": None,
    "compare runs/demo-cpu runs/demo-cpu --suite size": "models",
    "quantize runs/demo-cpu --output {made}/int8 --scheme int8 --eval-samples 4": "weights_bytes",
    "prune weights runs/demo-cpu --output {made}/zeros --ratio 0.5": "num_zeros",
    "prune units runs/demo-cpu --output {made}/units --ratio 0.25": "layers",
    f"prune structure runs/demo-cpu --output {{made}}/cut --ffn 128 --held-out-sequences 2 {' '.join(SMALL)}": "shape",
    f"prune sensitivity runs/demo-cpu --output {{made}}/s --parts fc1 --ratios 0.5 --held-out-sequences 2 "
    f"{' '.join(SMALL)}": "step",
    "distill cache configs/runs/demo-cpu.yaml --teacher runs/demo-cpu --output {made}/cache --samples 2": "num_bytes",
}
"""A command, and a key of what it says."""

ELSEWHERE = {
    "bundle decrypt", "bundle encrypt", "bundle sign", "checkpoint push", "checkpoint sign", "doctor", "prep run",
    "rate", "rehearse", "report", "resume-check", "triage",
}  # fmt: skip
"""Commands with ``--json`` that need keys, stores, people or ranks."""


def test_every_command_has_json_or_no_table() -> None:
    leaves = {one.path: {option.word for option in one.options} for one in walk(whole_parser()) if not one.subs}
    with_json = {path for path, options in leaves.items() if "--json" in options}
    assert with_json == set(leaves) - set(NO_TABLE)
    run = {path for path in with_json if any(command.startswith(path + " ") for command in COMMANDS)}
    assert with_json == run | ELSEWHERE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json")


@pytest.fixture(autouse=True)
def no_groups_left() -> Iterator[None]:
    """Leave no process group: each command has a process of its own elsewhere."""
    yield
    if "megatron.core" in sys.modules:
        from megatron.core import parallel_state

        parallel_state.destroy_model_parallel()
    if "torch" in sys.modules:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.partition(" {")[0].replace("/", "."))
def test_stdout_is_one_document(command: str, documented: Path, made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(documented):
        status = main([*command.format(made=made).split(), "--json"])
    said = capfd.readouterr()
    assert status == 0, said.err
    tree = json.loads(said.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert said.out.count("\n") == 1
    key = COMMANDS[command]
    assert key is None or key in tree
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in tree) if isinstance(tree, dict) else tree


def test_damage_is_one_document_and_one_line(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = made / "nothing"
    folder.mkdir()
    assert main(["data", "verify", str(folder), "--json"]) == 2
    said = capfd.readouterr()
    assert json.loads(said.out)["folders"][0]["is_whole"] is False
    assert said.err.startswith("gptdist data: error: ")
    assert main(["audit", str(folder), "--json"]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1


def test_text_and_document_say_the_same(documented: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert os.environ.get("FORCE_COLOR") is None
    with contextlib.chdir(documented):
        main(["checkpoint", "list", "runs/demo-cpu"])
        text = capfd.readouterr().out.splitlines()[1:]
        main(["checkpoint", "list", "runs/demo-cpu", "--json"])
    found = json.loads(capfd.readouterr().out)["checkpoints"]
    assert len(found) == len(text) > 1
    for line, one in zip(text, found, strict=True):
        assert line.split() == [
            str(one["step"]), f"{one['consumed_samples']:,}", f"{one['consumed_tokens']:,}", f"{one['loss']:.4f}",
            f"{one['num_bytes']:,}", one["folder"],
        ]  # fmt: skip
