"""A run config says everything that is wrong with it, at once, in lines to act on."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from gptdist.errors import ConfigError
from tests.support.datasets import LLAMA
from tests.support.ranks import repository
from tests.unit.config.written import MINIMAL, run_problems, write_config


def test_every_shipped_run_config_is_legal() -> None:
    found = sorted((repository() / "configs" / "runs").glob("*.yaml"))
    assert found
    for path in found:
        load_config(RunConfig, path)


def test_defaults_are_filled_in_and_frozen(tmp_path: Path) -> None:
    config = load_config(RunConfig, write_config(tmp_path), ["optimizer.lr=6e-4", "batch.micro_batch_size=4"])
    assert config.optimizer.lr == 6e-4, "YAML 1.2 reads 6e-4 as a number"
    assert config.batch.micro_batch_size == 4
    assert config.checkpoints_folder == Path("runs/test/checkpoints")
    source = config.data.sources[0]
    assert (source.weight, source.relative_weight, source.max_epochs) == (None, 1.0, None)
    assert config.data.temperature is None
    assert RunConfig.from_tree(config.tree()) == config
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    found = run_problems(tmp_path, ["model.num_layers=0", "optimizer.lr=0", "intervals.log_steps=0", "seed=-1"])
    assert len(found) == 4, found


def test_layout_and_batch_are_told_together(tmp_path: Path) -> None:
    changes = ["parallel.pipeline_parallel_size=2", "parallel.zero_stage=3", "launch.ranks_per_node=2"]
    found = run_problems(tmp_path, [*changes, "batch.global_batch_size=7"])
    assert [line.split(":")[0] for line in found] == [
        "parallel.zero_stage",
        "batch.global_batch_size (7) is no multiple of batch.micro_batch_size (2) x data-parallel size (1) = 2; "
        "change one",
    ], found


@pytest.mark.parametrize("override", ["parallel", "=3", "seed=[1", "seed={"])
def test_bad_overrides(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=r"not an override|is not YAML"):
        load_config(RunConfig, write_config(tmp_path), [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\na: 2\n", r"run.yaml:2: found duplicate key"),
        (b"a: [1\n", r"run.yaml:2: "),
        (b"- 1\n", r"holds list, not a mapping"),
        (b"", r"holds NoneType, not a mapping"),
        (b"a: \xff\n", r"not UTF-8 at byte 3"),
        (b"base: run.yaml\n", r"includes itself"),
        (b"base: gone.yaml\n", r"gone.yaml: no such config file"),
        (b"a: \x01\n", r"run.yaml: .*mend the YAML"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(RunConfig, tmp_path / "run.yaml")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(RunConfig, tmp_path)


def test_bases_are_merged_and_later_ones_win(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": LLAMA, "seed": 1}))
    (tmp_path / "other.yaml").write_text("seed: 2\nmodel: {num_layers: 5}\n")
    tree = {key: value for key, value in MINIMAL.items() if key != "model"}
    path = write_config(tmp_path, tree, base=["model.yaml", "other.yaml"], model={"num_layers": 7})
    config = load_config(RunConfig, path)
    assert (config.seed, config.model.num_layers, config.model.activation) == (2, 7, "swiglu")


def test_yaml_words_are_not_booleans_and_times_not_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: on\n" + yaml.safe_dump({k: v for k, v in MINIMAL.items() if k != "name"}))
    assert load_config(RunConfig, path).name == "on"


def test_dates_and_numbers_that_are_none_are_refused_in_a_line(tmp_path: Path) -> None:
    assert any("seed: " in line for line in run_problems(tmp_path, ["seed=2020-01-01"]))
    assert any("optimizer.lr: " in line for line in run_problems(tmp_path, ["optimizer.lr=.nan"]))
    assert any("optimizer.lr: " in line for line in run_problems(tmp_path, ["optimizer.lr=.inf"]))


def test_missing_folders_are_found_without_torch_and_fast(tmp_path: Path) -> None:
    """A config error takes under a second on an idle machine; here only that torch is not imported for it."""
    path = write_config(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None; from gptdist.cli.main import main; "
        f"sys.exit(main(['launch', 'local', {str(path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "data.tokenizer: folder 't' does not exist; prepare it with 'gptdist prep run'" in done.stderr
    assert "data.sources[0].path: folder 'd/a' does not exist" in done.stderr
