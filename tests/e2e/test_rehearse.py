"""A whole rehearsal with real ranks: one that passes, and two that fail where the real run would."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.datasets import LLAMA

JOB: dict[str, Any] = {
    "name": "job",
    "model": LLAMA | {"num_layers": 32, "hidden_size": 512, "num_attention_heads": 16, "num_query_groups": 8},
    "data": {
        "tokenizer": "nowhere/tokenizer",
        "sources": [{"path": "nowhere/web", "weight": 0.7}, {"path": "nowhere/code", "weight": 0.3}],
        "validation": [{"name": "news", "path": "nowhere/news"}],
    },
    "batch": {
        "global_batch_size": 512,
        "micro_batch_size": 4,
        "ramp": [{"global_batch_size": 256, "until_tokens": 500_000}],
    },
    "training": {"train_steps": 5000},
    "parallel": {"tensor_parallel_size": 4, "zero_stage": 1},
    "schedule": {"warmup_steps": 200},
    "checkpoints": {"protection": {"encrypt": True, "key_path": "nowhere/key"}, "keep": {"last": 1}},
    "launch": {"ranks_per_node": 8},
}


def _rehearse(folder: Path, tree: dict[str, Any], *words: str) -> "subprocess.CompletedProcess[str]":
    (folder / "job.yaml").write_text(yaml.safe_dump(tree))
    argv = [sys.executable, "-m", "gptdist.cli.main", "rehearse", "job.yaml", *words]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


def test_a_job_of_32_ranks_on_4(tmp_path: Path) -> None:
    done = _rehearse(tmp_path, JOB, "--nodes", "4", "--keep", "kept", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["passed"]
    assert (found["real_layout"], found["layout"]) == (
        "32 ranks = data 8 x tensor 4",
        "4 ranks = data 2 x tensor 2",
    )
    phases = {phase["name"]: phase for phase in found["phases"]}
    assert list(phases) == [
        *("config", "data", "launch", "step", "validation", "save", "verify", "resume", "reshard", "export"),
    ]
    assert {phase["status"] for phase in phases.values()} == {"ok"}
    assert "web, code, news" in phases["validation"]["text"]
    assert phases["verify"]["text"].endswith("encrypted")
    assert "bit for bit" in phases["resume"]["text"]
    assert phases["reshard"]["text"].startswith(
        "parallel.tensor_parallel_size=1 launch.ranks_per_node=2 parallel.zero_stage=2: steps "
    )
    assert phases["export"]["text"].startswith("LlamaForCausalLM, ")
    assert "model.hidden_size: 512 → 64" in found["changed"]
    assert "checkpoints.protection: keys are made anew, the run's own are not read" in found["left_out"]
    kept = tmp_path / "kept"
    assert {path.name for path in kept.iterdir()} >= {"config.yaml", "data", "run", "export", "launch.txt"}
    records = [json.loads(line) for line in (kept / "run" / "metrics.jsonl").read_text().splitlines()]
    sizes = [record["global_batch_size"] for record in records if record["kind"] == "train"]
    assert sorted(set(sizes)) == [4, 12], "the ramp was gone through"
    assert {path.name for path in tmp_path.iterdir()} == {"job.yaml", "kept"}, "nothing of the real run is made"


def _failed(folder: Path, **changes: Any) -> tuple[list[str], str]:
    """Rehearse a job that goes wrong on one rank; return its table's last lines, and what is told of the failure."""
    tree = {key: value for key, value in JOB.items() if key not in ("parallel", "launch")} | changes
    done = _rehearse(folder, tree)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout.splitlines()[-3:], done.stderr


def test_what_deepspeed_refuses_fails_with_the_first_failure_of_the_ranks(tmp_path: Path) -> None:
    lines, told = _failed(tmp_path, deepspeed={"zero_optimization": {"reduce_bucket_size": "large"}})
    assert lines[0].startswith("launch      FAILED")
    assert "rank 0 on" in lines[0]
    assert lines[1] == "nothing is kept; with --keep DIR the logs of all ranks are"
    assert lines[2] == "FAIL  launch"
    assert "Traceback" in told
    assert "reduce_bucket_size" in told


def test_initial_weights_that_are_far_too_large(tmp_path: Path) -> None:
    lines, _ = _failed(tmp_path, model=JOB["model"] | {"init_std": 2.0})
    assert lines[0].startswith("step        FAILED")
    assert "of an untrained model it is near ln(257) = 5.5491; see model.init" in lines[0]
    assert lines[2] == "FAIL  step"
