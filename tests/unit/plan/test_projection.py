"""A plan as a whole: every preset, the search, what the command says of wrong input."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gptdist.cli.main import main
from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from gptdist.config.source import read_tree
from gptdist.errors import ConfigError
from gptdist.mesh.layout import Layout
from gptdist.model.arithmetic import num_parameters
from gptdist.plan.device import find_device
from gptdist.plan.projection import Cluster, project
from gptdist.plan.rank_memory import COMPONENTS
from gptdist.plan.request import read_request
from gptdist.plan.search import most_bytes, override_line, search
from gptdist.plan.text import plan_lines

MODELS = Path(__file__).parents[3] / "configs" / "models"
PRESETS = sorted(path.stem for path in MODELS.glob("*.yaml"))


def planned(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    main(["plan", *arguments, "--json"])
    tree: dict[str, Any] = json.loads(capsys.readouterr().out)
    return tree


def request(name: str, *overrides: str, nodes: int = 2, device: str = "h100-80gb") -> tuple[RunConfig, Cluster]:
    found = find_device(device)
    config, _ = read_request(MODELS / f"{name}.yaml", list(overrides), found, num_nodes=nodes, tokens=None)
    return config, Cluster(found, nodes, config.launch.ranks_per_node)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_planned(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    tree = planned(str(MODELS / f"{name}.yaml"), "--nodes", "2", "--device", "h100-80gb", capsys=capsys)
    assert tree["parameters"] == num_parameters(ModelConfig.from_tree(read_tree(MODELS / f"{name}.yaml")["model"]))
    for stage in tree["memory_bytes"]:
        assert stage["total"] == sum(stage[component] for component in COMPONENTS)
    parts = {part: seconds for part, seconds in tree["step_seconds"].items() if part != "total"}
    assert tree["step_seconds"]["total"] == pytest.approx(sum(parts.values()))
    assert tree["tokens_per_second"] == pytest.approx(tree["tokens_per_step"] / tree["step_seconds"]["total"])
    assert 0 < tree["mfu"] <= tree["hfu"] < 1


def test_figures_that_follow_from_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (str(MODELS / "llama3-8b.yaml"), "--nodes", "4", "--device", "h100-80gb", "--tokens", "1T")
    tree = planned(*arguments, capsys=capsys)
    assert tree["train_tokens"] == pytest.approx(1e12, rel=1e-5)
    assert tree["days"] == pytest.approx(tree["train_tokens"] / tree["tokens_per_second"] / 86_400)
    assert tree["device_hours"] == pytest.approx(tree["days"] * 24 * 32)
    assert tree["kilowatt_hours"] == pytest.approx(tree["device_hours"] * 0.7)
    assert tree["checkpoint_bytes"] == 12 * 8_030_261_248
    assert tree["verdict"] == "does not fit"
    assert main(["plan", *arguments]) == 1
    text = capsys.readouterr().out
    assert "8,030,261,248 parameters" in text
    assert "does not fit: " in text
    assert "see --price" in text
    assert main(["plan", *arguments, "memory.recompute=full", "--price", "2.5"]) == 0
    assert "at 2.5 a device-hour" in capsys.readouterr().out


def test_what_is_kept_again_and_what_is_cut_is_seen_in_memory() -> None:
    plain = project(*request("llama3-8b")).peak
    again = project(*request("llama3-8b", "memory.recompute=full")).peak
    cut = project(*request("llama3-8b", "memory.recompute=full", "parallel.zero_stage=3")).peak
    assert again.activations < plain.activations / 5
    assert cut.optimizer + cut.gradients < (again.optimizer + again.gradients) / 2


def test_the_verdict_is_of_the_band() -> None:
    config, cluster = request("llama3-8b", "memory.recompute=full")
    needed = project(config, cluster).peak.total
    verdicts = {}
    for room in (needed - 1, needed, int(needed * 1.11), int(needed * 1.13)):
        device = cluster.device.model_copy(update={"memory_bytes": room})
        verdicts[room] = project(config, replace(cluster, device=device)).verdict
    assert list(verdicts.values()) == ["does not fit", "tight", "tight", "fits"]


def test_hardware_does_what_is_computed_again_too(capsys: pytest.CaptureFixture[str]) -> None:
    plan = project(*request("llama3-8b", "memory.recompute=full"))
    assert plan.hfu / plan.mfu == pytest.approx(4 / 3)
    assert project(*request("llama3-8b")).hfu == project(*request("llama3-8b")).mfu
    assert f"MFU {plan.mfu:.3f} (model FLOP/s over peak), HFU {plan.hfu:.3f}" in "\n".join(plan_lines(plan, price=None))


def test_experts_that_are_computed_again_are_counted() -> None:
    plain = project(*request("mixtral-8x7b")).time
    again = project(*request("mixtral-8x7b", "memory.recompute=mlp")).time
    experts = 2 * 3 * 4096 * 14336  # values that a token meets in a layer's experts, of those in its matrices
    share = experts / (experts + 2 * 4096 * (4096 + 1024))
    assert again.matmul / plain.matmul == pytest.approx(1 + share / 3, rel=0.02)


def test_an_offload_takes_the_way_to_main_memory() -> None:
    plain = project(*request("llama3-8b", "parallel.zero_stage=3"))
    away = project(*request("llama3-8b", "parallel.zero_stage=3", "memory.offload_optimizer=cpu"))
    moved = 2 * 2 * 8_030_261_248 / 16  # gradients and weights in bf16, of a sixteenth
    assert away.time.optimizer - plain.time.optimizer == pytest.approx(moved / 55e9)
    assert away.peak.optimizer < plain.peak.optimizer
    assert away.offloaded_bytes > plain.offloaded_bytes == 0


def test_a_search_weighs_the_last_stage_too() -> None:
    config, cluster = request("llama3-8b", "parallel.pipeline_parallel_size=8", "model.seq_length=128")
    plan = project(config, cluster)
    assert plan.peak.stage == 7
    assert most_bytes(config, cluster) == plan.peak.total


def test_the_fastest_layouts_are_legal_fit_and_are_ranked() -> None:
    config, cluster = request("gpt3-175b", nodes=128)
    found = search(config, cluster, count=6)
    assert found.num_legal > 100
    speeds = [plan.tokens_per_second for plan in found.best]
    assert speeds == sorted(speeds, reverse=True)
    assert len({str(plan.layout) for plan in found.best}) == 6
    for plan in found.best:
        assert plan.config.problems(1024) == []
        assert plan.verdict != "does not fit"
        overrides = override_line(plan.config, config).split()
        again, _ = request("gpt3-175b", *overrides, nodes=128)
        assert project(again, cluster).time == plan.time
        assert Layout.of(again.parallel, 1024) == plan.layout


def test_where_nothing_fits_the_leanest_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    model = str(MODELS / "gpt3-175b.yaml")
    assert main(["plan", model, "--nodes", "1", "--device", "v100-32gb", "--search", "training.precision=fp16"]) == 1
    assert "legal layouts fits; the leanest needs" in capsys.readouterr().out


def test_a_search_splits_experts_too() -> None:
    found = search(*request("qwen3-30b-a3b", nodes=4), count=100)
    splits = {plan.layout.expert_parallel_size for plan in found.best}
    assert {1, 2, 4, 8} <= splits
    assert all(plan.time.expert_parallel > 0 for plan in found.best if plan.layout.expert_parallel_size > 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--nodes", "0", "--price", "-1", "--count", "0"],
            ["--device: missing", "--nodes: ", "--price: ", "--count: "],
        ),
        (
            ["--device", "h100", "--interconnect", "ib", "--tokens", "0"],
            ["--device: no 'h100'", "--interconnect", "--tok"],
        ),
        (["--device", "v100-32gb"], ["training.precision: v100-32gb does not compute in bf16; use one of fp32, fp16"]),
        (["--device", "h100-80gb", "parallel.tensor_parallel_size=7"], ["parallel.tensor_parallel_size (7)"]),
        (
            ["--device", "h100-80gb", "launch.ranks_per_node=16"],
            ["launch.ranks_per_node (16): a node has 8"],
        ),
        (["--device", "h100-80gb", "training.device=cpu"], ["training.device: cpu, but the plan is for h100-80gb"]),
        (["--device", "h100-80gb", "model.hidden_size=0"], ["model.hidden_size: must be at least 1"]),
        (["--device", "h100-80gb", "batch=3"], ["batch: must be a mapping"]),
    ],
)
def test_wrong_input_is_told_in_one_go(
    arguments: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(MODELS / "gpt2-124m.yaml"), *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    for wanted in told:
        assert any(wanted in line for line in lines), (wanted, lines)


def test_more_main_memory_than_a_node_has() -> None:
    config, cluster = request("gpt3-175b", "parallel.zero_stage=3", "memory.offload_optimizer=cpu", nodes=1)
    with pytest.raises(ConfigError, match=r"memory.offload_optimizer: a node needs [\d,]+ GiB of main memory"):
        project(config, cluster)


def test_training_waits_for_saves_that_no_buffer_can_hold() -> None:
    plan = project(*request("gpt3-175b", nodes=2))
    assert plan.buffer_bytes == -(-plan.checkpoint_bytes // 2)
    waits = project(*request("gpt3-175b", nodes=1))
    assert waits.buffer_bytes == 0
    assert waits.time.checkpoint == pytest.approx(waits.checkpoint_seconds / waits.config.intervals.save_steps)
    assert waits.time.checkpoint > 10 * plan.time.checkpoint


def test_a_config_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("name: none\n")
    assert main(["plan", str(path), "--device", "h100-80gb"]) == 2
    assert "model: missing; name a run config or a file of configs/models" in capsys.readouterr().err


def test_published_runs_are_scored(capsys: pytest.CaptureFixture[str]) -> None:
    rows = str(Path(__file__).parents[3] / "benchmarks" / "published_runs.csv")
    assert main(["plan", "--score", rows]) == 0
    text = capsys.readouterr().out
    assert "time: 324 rows: median |error|" in text
    assert "out of memory: 5 of 5 called" in text
    assert main(["plan", "--score", rows, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["measured_step_seconds"] == pytest.approx(3.53, abs=0.01)


def test_a_plan_needs_no_torch() -> None:
    code = (
        "import sys; from gptdist.cli.main import main\n"
        f"main(['plan', {str(MODELS / 'llama3-8b.yaml')!r}, '--device', 'h100-80gb', '--search'])\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'scipy', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
