"""A replay of the steps between two checkpoints is the run, bit for bit; what was tampered with is named."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gptdist.errors import CheckpointError, ConfigError
from launch.resume_check import scratch_config, two_newest
from launch.resume_plan import check_plan_data, make_plan
from launch.verdict import Findings
from tests.support.datasets import GPT2, run_tree
from tests.support.jobs import train_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks
from tests.support.step_folders import rewrite_manifest, write_tensors

LAYOUT = TestedLayout(2, 1, 1)
OTHER = ["parallel.tensor_parallel_size=2", "parallel.zero_stage=3"]


def _train(tree: dict[str, Any]) -> None:
    """Train a run to its end, as a rank of ``gptdist.train`` does."""
    assert train_run(tree) == (True, 4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two ranks with dropout and checkpoints at the steps 2 and 4."""
    folder = tmp_path_factory.mktemp("resume_check")
    intervals = {"save_steps": 2, "log_steps": 1}
    model = GPT2 | {"hidden_dropout": 0.1}
    run_ranks(
        2, _train, run_tree(folder, model=model, training={"train_steps": 4}, intervals=intervals, **LAYOUT.sections())
    )
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be tampered with."""
    shutil.copytree(trained, tmp_path / "run", copy_function=shutil.copy2)
    return tmp_path / "run"


def _replay_rank(tree: dict[str, Any], until: int, target: Path | None) -> dict[str, Any]:
    from gptdist.config.run import RunConfig
    from gptdist.train.replay import replay

    return replay(RunConfig.from_tree(tree), until, target)


def _check(run: Path, overrides: Sequence[str] = (), steps: int | None = None) -> Findings:
    """Do what ``gptdist resume-check`` does, with ranks from the tests' server."""
    before, saved = two_newest(run / "checkpoints")
    plan = make_plan(before, saved, overrides, steps=steps)
    check_plan_data(plan)
    findings = Findings.of(plan, None)
    scratch = run.parent / f"scratch-{len(list(run.parent.iterdir()))}"
    tree = scratch_config(plan, scratch).tree()
    ranks = plan.config.launch.ranks_per_node
    report = run_ranks(ranks, _replay_rank, tree, plan.until, saved if plan.is_whole else None)[0]
    findings.take(json.loads(json.dumps(report)))
    return findings


def _content(run: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}


def _perturb(folder: Path, tensor: str, by: float) -> None:
    """Change one weight, and hash the file anew: the checkpoint is whole, and another."""
    from safetensors.torch import load_file

    manifest = json.loads((folder / "manifest.json").read_text())
    holder = next(one["file"] for one in manifest["fragments"] if one["tensor"] == tensor)
    tensors = {key: values.clone() for key, values in load_file(folder / holder).items()}  # not mapped
    tensors[f"weight/{tensor}"][0] += by
    entry = write_tensors(folder / holder, tensors)
    manifest["files"] = [entry.tree() if one["name"] == holder else one for one in manifest["files"]]
    rewrite_manifest(folder, manifest)


def test_it_passes_bit_for_bit_and_within_a_tolerance_and_touches_nothing(run: Path) -> None:
    before = _content(run)
    same = _check(run)
    assert same.verdict() == "PASS  steps 3 to 4 come out bit for bit, and lead to step_00000004"
    assert "weights and moments: 84 tensors equal bit for bit" in same.lines
    assert "2 of 2 steps compared, at most 0.00e+00 apart" in same.lines
    other = _check(run, OTHER)
    assert other.verdict() == "PASS  steps 3 to 4 come out within 0.0001, and lead to step_00000004"
    assert any("tensors differ, by" in line for line in other.lines), "another layout sums in another order"
    part = _check(run, ["launch.ranks_per_node=1"], steps=1)
    assert part.verdict() == "PASS  steps 3 to 3 come out within 0.0001"
    assert _content(run) == before


def test_a_run_with_an_encryption_key_passes_bit_for_bit(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    sealed = {"protection": {"encrypt": True, "key_path": str(key)}}
    intervals = {"save_steps": 2, "log_steps": 1}
    tree = run_tree(tmp_path, training={"train_steps": 4}, intervals=intervals, checkpoints=sealed, **LAYOUT.sections())
    run_ranks(2, _train, tree)
    assert b"word_embeddings" not in (tmp_path / "run/checkpoints/step_00000004/rank_00000.safetensors").read_bytes()
    assert _check(tmp_path / "run").verdict().startswith("PASS  steps 3 to 4 come out bit for bit")
    key.write_text("cd" * 32)
    with pytest.raises(CheckpointError, match=r"is encrypted with key .*, the one at hand is"):
        _check(tmp_path / "run")


def test_a_saved_weight_that_no_step_led_to_is_named(run: Path) -> None:
    saved = run / "checkpoints" / "step_00000004"
    name = next(
        one["name"] for one in json.loads((saved / "manifest.json").read_text())["tensors"] if "layers.1" in one["name"]
    )
    _perturb(saved, name, by=1e-6)
    wanted = rf"FAIL  weight of '{name}' differs first from step_00000004, in 1 values by \d\.\d+e-0\d"
    found = _check(run)
    assert len(found.problems) == 1
    assert re.match(wanted, found.verdict()), found.verdict()
    _perturb(saved, name, by=1.0)
    assert f"FAIL  weight of '{name}' differs most" in _check(run, ["launch.ranks_per_node=1"]).verdict()


def test_a_weight_that_was_changed_before_is_named_by_step(run: Path) -> None:
    _perturb(run / "checkpoints" / "step_00000002", "embedding.word_embeddings.weight", by=0.5)
    found = _check(run)
    assert found.verdict().startswith("FAIL  step 3: loss was "), found.verdict()
    assert any(problem.startswith("weight of 'embedding.word_embeddings.weight'") for problem in found.problems)


def test_other_records_are_named(run: Path) -> None:
    path = run / "checkpoints" / "step_00000004" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["progress"]["proof"]["steps"][-1]["grad_norm"] += 1.0
    rewrite_manifest(path.parent, manifest)
    assert _check(run).verdict().startswith("FAIL  step 4: grad_norm was ")


def test_mistakes_are_told(run: Path) -> None:
    before, saved = two_newest(run / "checkpoints")
    with pytest.raises(ConfigError, match=r"optimizer.lr=1: is no part of the layout; a replay takes parallel"):
        make_plan(before, saved, ["optimizer.lr=1"], steps=None)
    with pytest.raises(ConfigError, match=r"does not divide the number of ranks"):
        make_plan(before, saved, ["parallel.tensor_parallel_size=4"], steps=None)
    with pytest.raises(
        ConfigError, match=r"batch.micro_batch_size: 2 → 4, but each of its parts draws masks of its own"
    ):
        make_plan(before, saved, ["batch.micro_batch_size=4"], steps=None)
    with pytest.raises(CheckpointError, match=r"--steps: 3, but there are 2 from step_00000002 to step_00000004"):
        make_plan(before, saved, [], steps=3)
    (before / "manifest.json").unlink()
    for file in before.iterdir():
        file.unlink()
    before.rmdir()
    with pytest.raises(CheckpointError, match=r"step_00000004 is the only checkpoint, a replay goes from one to the"):
        two_newest(run / "checkpoints")
    with pytest.raises(CheckpointError, match=r"holds no checkpoint; name the folder of a run"):
        two_newest(run / "nothing")
