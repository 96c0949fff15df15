"""A plan's counts are those of a walk over all samples; what exceeds max_epochs is refused, here and at the launch."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from gptdist.cli.main import main
from gptdist.config.run import RunConfig
from gptdist.data.plan import DataPlan, SourcePlan, check_epochs, plan_data
from gptdist.data.sources import TrainingData
from gptdist.errors import ConfigError
from tests.support.datasets import run_tree

STEP_TOKENS = 8 * 32


def _tree(folder: Path, *, prose: float | None = None, code: float | None = None, **changes):
    tree = run_tree(folder, **changes)
    for source, max_epochs in zip(tree["data"]["sources"], (prose, code), strict=True):
        source["max_epochs"] = max_epochs
    return tree


def _plan(folder: Path, **limits) -> tuple[RunConfig, TrainingData, DataPlan]:
    config = RunConfig.from_tree(_tree(folder, **limits))
    data = TrainingData(config)
    return config, data, plan_data(config, data.order, steps=limits.pop("steps", None))


@pytest.mark.parametrize("steps", [1, 6, 200, 1250, 1999])
def test_counts_and_epochs_are_those_of_a_walk(tmp_path: Path, steps: int) -> None:
    config = RunConfig.from_tree(_tree(tmp_path))
    data = TrainingData(config)
    plan = plan_data(config, data.order, steps=steps)
    addresses = [data.order.address(sample) for sample in range(8 * steps)]
    walked = Counter(address.source for address in addresses)
    assert (plan.steps, plan.samples, plan.tokens) == (steps, 8 * steps, steps * STEP_TOKENS)
    for index, source in enumerate(plan.sources):
        assert source.samples == walked[index]
        epochs = [address.epoch for address in addresses if address.source == index]
        assert epochs == sorted(epochs), "epochs follow each other"
        whole, begun = divmod(source.samples, source.windows)
        assert Counter(epochs) == Counter(
            dict.fromkeys(range(whole), source.windows) | ({whole: begun} if begun else {})
        )
        assert source.epochs == source.samples / source.windows
        assert source.verdict == "no limit"
    assert plan.most_steps is plan.most_tokens is None
    assert plan.problems() == []


def test_the_most_steps_are_allowed_and_one_more_is_not(tmp_path: Path) -> None:
    config, data, plan = _plan(tmp_path, prose=1.5, code=3)
    assert plan.most_steps is not None
    assert plan_data(config, data.order, steps=plan.most_steps).problems() == []
    over = plan_data(config, data.order, steps=plan.most_steps + 1)
    assert len(over.problems()) == 1
    assert plan.most_tokens == plan.most_steps * STEP_TOKENS


def test_the_advised_max_epochs_is_enough_and_the_smallest_of_two_decimals(tmp_path: Path) -> None:
    config, data, _ = _plan(tmp_path, code=0.01)
    plan = plan_data(config, data.order, steps=500)
    needed = plan.sources[1].needed_max_epochs
    for max_epochs, problems in ((needed, 0), (round(needed - 0.01, 2), 1)):
        changed = RunConfig.from_tree(_tree(tmp_path, code=max_epochs))
        assert len(plan_data(changed, data.order, steps=500).problems()) == problems


def test_limits_go_by_the_decimal_digits_of_the_config() -> None:
    source = SourcePlan(0, "a", 3300, 1.0, windows=100, samples=29, max_epochs=0.29)
    assert 0.29 * 100 < 29, "the trap"
    assert source.is_allowed
    assert source.needed_max_epochs == 0.29
    assert not SourcePlan(0, "a", 3300, 1.0, windows=100, samples=30, max_epochs=0.29).is_allowed


def test_advice_on_many_epochs_keeps_every_digit() -> None:
    source = SourcePlan(0, "a", 3300, 1.0, windows=100, samples=123_456_741, max_epochs=2.0)
    plan = DataPlan(1, 1, 1, 100, 3200, (source,))
    assert plan.problems()[0].startswith("data.sources[0].max_epochs: 2, but ")
    assert plan.problems()[0].endswith("set it to 1234567.41 or more")


def test_a_refusal_names_every_source_with_numbers_and_what_to_do(tmp_path: Path) -> None:
    config, data, _ = _plan(tmp_path, prose=1, code=2)
    config = RunConfig.from_tree(config.tree() | {"training": config.training.tree() | {"train_steps": 2000}})
    with pytest.raises(ConfigError) as caught:
        check_epochs(config, data.order)
    plan = plan_data(config, data.order)
    prose, code = plan.sources
    walked = Counter(data.order.address(sample).source for sample in range(16_000))
    assert caught.value.problems == (
        f"data.sources[0].max_epochs: 1, but 2,000 steps (512,000 tokens) take {walked[0]:,} samples of 'prose', "
        f"which has {prose.windows:,}: {prose.epochs:.4f} epochs; train at most {plan.most_steps:,} steps "
        f"({plan.most_tokens:,} tokens), lower its weight, or set it to {prose.needed_max_epochs} or more",
        f"data.sources[1].max_epochs: 2, but 2,000 steps (512,000 tokens) take {walked[1]:,} samples of 'code', "
        f"which has {code.windows:,}: {code.epochs:.4f} epochs; train at most {plan.most_steps:,} steps "
        f"({plan.most_tokens:,} tokens), lower its weight, or set it to {code.needed_max_epochs} or more",
    )


def test_where_not_one_step_is_allowed_none_is_advised(tmp_path: Path) -> None:
    _, _, plan = _plan(tmp_path, prose=0.001)
    assert plan.most_steps == 0
    assert plan.problems()[0].endswith("epochs; lower its weight, or set it to 0.03 or more")


def test_a_resumed_run_counts_what_it_took_with_another_batch_size(tmp_path: Path) -> None:
    config, data, _ = _plan(tmp_path, prose=1.0)
    plan = plan_data(config, data.order, steps=20, step=10, consumed_samples=160)
    assert plan.samples == 160 + 10 * 8
    assert plan.most_steps is not None
    at_most = plan_data(config, data.order, steps=plan.most_steps, step=10, consumed_samples=160)
    assert at_most.problems() == []
    assert at_most.tokens == plan.most_tokens
    assert plan_data(config, data.order, steps=plan.most_steps + 1, step=10, consumed_samples=160).problems()
    too_late = plan_data(config, data.order, steps=20, step=10, consumed_samples=80_000)
    assert (too_late.most_steps, too_late.most_tokens) == (0, 0)
    with pytest.raises(ConfigError, match=r"data.sources\[0\].max_epochs: 1, but 6 steps .*; lower its weight"):
        check_epochs(config, data.order, step=10, consumed_samples=80_000)


def test_a_ramp_is_counted_step_by_step(tmp_path: Path) -> None:
    ramp = {"ramp": [{"until_tokens": 99 * 32, "global_batch_size": 2}]}
    config = RunConfig.from_tree(_tree(tmp_path, code=0.5, batch=ramp))
    data = TrainingData(config)
    plan = plan_data(config, data.order, steps=60)
    assert (plan.samples, plan.tokens) == (50 * 2 + 10 * 8, 180 * 32)
    assert config.train_tokens == 6 * 2 * 32
    assert plan.most_steps is not None
    assert plan_data(config, data.order, steps=plan.most_steps).problems() == []
    assert plan_data(config, data.order, steps=plan.most_steps + 1).problems()


@pytest.mark.parametrize(("tokens", "steps"), [("1", 1), ("64", 1), ("65", 2), ("3200", 50), ("3201", 51), ("4K", 54)])
def test_tokens_are_rounded_up_to_whole_steps_of_a_ramp(config_path: Path, tokens: str, steps: int, capsys) -> None:
    ramp = "batch.ramp=[{until_samples: 99, global_batch_size: 2}]"
    main(["data", "plan", str(config_path), ramp, "--tokens", tokens, "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert (plan["steps"], plan["tokens"]) == (steps, 32 * (2 * min(steps, 50) + 8 * max(0, steps - 50)))


def test_the_summary_is_one_line_for_any_number_of_sources() -> None:
    sources = tuple(SourcePlan(k, f"s{k}", 3300, 0.1, 100, 250, None) for k in range(10))
    plan = DataPlan(1, 2500, 80_000, None, None, sources)
    assert plan.summary().startswith("s0 10.00% (2.5 epochs), s1 10.00% (2.5 epochs), ")
    assert plan.summary().endswith("s7 10.00% (2.5 epochs) and 2 more sources")


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(_tree(tmp_path, code=2.5)))
    return path


def test_the_command_prints_a_table(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "plan", str(config_path)]) == 0
    head, titles, prose, code, most = capsys.readouterr().out.splitlines()
    assert head == "6 steps, 48 samples, 1,536 tokens"
    assert titles.split() == ["source", "tokens", "share", "samples", "epochs", "max_epochs", "verdict"]
    assert prose.split()[0] == "prose"
    assert prose.split()[2] == "70.00%"
    assert prose.endswith("-  no limit")
    assert code.endswith("2.5  ok")
    assert most.startswith("most that every max_epochs allows: ")


@pytest.mark.parametrize(
    ("tokens", "steps"),
    [("1", 1), ("256", 1), ("257", 2), ("20_000", 79), ("1.024K", 4), ("0.3m", 1172), ("2B", 7_812_500)],
)
def test_tokens_are_rounded_up_to_whole_steps(config_path: Path, tokens: str, steps: int, capsys) -> None:
    main(["data", "plan", str(config_path), "--tokens", tokens, "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert (plan["steps"], plan["tokens"]) == (steps, steps * STEP_TOKENS)
    assert plan["sources"][1]["verdict"] == ("ok" if plan["sources"][1]["epochs"] <= 2.5 else "too often")


@pytest.mark.parametrize("tokens", ["", "B", "0", "-5", "1.5", "nan", "inf", "1e999999999", "300 billion"])
def test_other_lengths_are_refused(config_path: Path, tokens: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "plan", str(config_path), f"--tokens={tokens}"])
    assert caught.value.code == 2
    assert f"'{tokens}' is not a number of tokens, such as 300B, 1.5T or 20_000_000" in capsys.readouterr().err


def test_the_command_refuses_after_the_table(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "plan", str(config_path), "training.train_steps=3000"]) == 2
    shown = capsys.readouterr()
    assert "too often" in shown.out
    assert shown.err.startswith("gptdist data: error: data.sources[1].max_epochs: 2.5, but 3,000 steps (768,000 ")
    assert shown.err.count("\n") == 1


def test_the_command_names_missing_folders(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "plan", str(config_path), "data.sources=[{path: gone}]"]) == 2
    assert "data.sources[0].path: folder 'gone' does not exist; prepare it" in capsys.readouterr().err


def test_a_launch_refuses_the_same_without_torch_and_starts_no_rank(config_path: Path, tmp_path: Path) -> None:
    for command in (["data", "plan"], ["launch", "local"]):
        code = (
            "import sys; sys.modules['torch'] = None; from gptdist.cli.main import main; "
            f"sys.exit(main({[*command, str(config_path), 'training.train_steps=3000']!r}))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "data.sources[1].max_epochs: 2.5, but 3,000 steps (768,000 tokens) take 7,201 samples" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_launch_counts_what_is_done(config_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint that took many samples in few steps: the config alone would not tell that the rest is too much."""
    from gptdist.checkpoint.identity import RunIdentity
    from gptdist.data.sources import check_data
    from tests.support.step_folders import numbered, rewrite_manifest, write_step_folder

    config = RunConfig.from_tree(yaml.safe_load(config_path.read_text()))
    identity = RunIdentity.of(config, *check_data(config))
    step = write_step_folder(tmp_path / "run" / "checkpoints" / "step_00000003", {"x": numbered(1, 4, 2)})
    tree = json.loads((step / "manifest.json").read_text())
    tree["config"], tree["data_fingerprints"] = identity.config, identity.data_fingerprints
    tree["tokenizer_fingerprint"] = identity.tokenizer_fingerprint
    tree["progress"]["consumed_samples"] = 100_000
    rewrite_manifest(step, tree)
    assert main(["launch", "local", str(config_path)]) == 2
    assert "data.sources[1].max_epochs: 2.5, but 6 steps (3,200,768 tokens)" in capsys.readouterr().err
