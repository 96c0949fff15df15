"""A recipe becomes commands, goes on where it was ended, and refuses what does not fit together."""

import json
from pathlib import Path
from typing import Any

import pytest

from gptdist.cli import compress
from gptdist.cli.main import main
from gptdist.compress.recipe import RecipeRecord, stage_commands
from gptdist.config.recipe import RecipeConfig
from gptdist.errors import ConfigError

STAGES: list[dict[str, Any]] = [
    {"name": "small", "run": "prune structure", "options": {"target-parameters": 0.5, "axes": "ffn"}},
    {"name": "taught", "run": "distill run", "overrides": {"training.train_steps": 30}},
    {"name": "sparse", "run": "prune weights", "options": {"ratio": 0.5, "data": ["a", "b"]}},
    {"name": "again", "run": "distill run", "teacher": "taught"},
    {"name": "plain", "run": "distill run", "of": "sparse", "overrides": {"training.keep_zeros": False}},
    {"name": "int8", "run": "quantize", "of": "again", "options": {"scheme": "int8"}},
]


def recipe(folder: Path, stages: list[dict[str, Any]] | None = None, **changes: Any) -> RecipeConfig:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    if not (model / "config.json").exists():
        (model / "config.json").write_text("{}")
    tree = {"model": str(model), "output_dir": str(folder / "out"), "stages": STAGES if stages is None else stages}
    return RecipeConfig.from_tree(tree | changes)


def test_stages_become_commands(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    assert config.problems() == []
    model, out = str(tmp_path / "model"), str(tmp_path / "out")
    small, taught, sparse, again, plain, int8 = (list(command.words) for command in stage_commands(config))
    assert small == [
        *["prune", "structure", model, "--output", f"{out}/small", "--target-parameters", "0.5", "--axes", "ffn"],
        *["--write-config", f"{out}/small.yaml"],
    ]
    assert taught == [
        *["distill", "run", f"{out}/small.yaml", "--teacher", model, "--student", f"{out}/small"],
        *['name="taught"', f'run_dir="{out}/taught"', "training.train_steps=30"],
    ]
    assert sparse[:4] == ["prune", "weights", f"{out}/taught", "--output"]
    assert sparse[5:] == ["--ratio", "0.5", "--data", "a", "--data", "b"]
    assert again[3:7] == ["--teacher", f"{out}/taught", "--student", f"{out}/sparse"]
    assert again[-1] == "training.keep_zeros=true"  # what was pruned stays so
    assert plain[-1] == "training.keep_zeros=false"
    assert int8 == ["quantize", f"{out}/again", "--output", f"{out}/int8", "--scheme", "int8"]


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    stages = [
        {"name": "a/b", "run": "prune weights", "options": {"output": "x"}, "overrides": {"seed": 1}},
        {"name": "q", "run": "quantize", "of": "later", "teacher": "model"},
        {"name": "q", "run": "distill run", "overrides": {"run_dir": "x"}},
    ]
    assert recipe(tmp_path, stages).problems() == [
        "stages[0].name: must be letters, digits, '_', '-' and '.', got 'a/b'",
        "stages[0].options.output: follows from the recipe; leave it out",
        "stages[0].overrides: 'prune weights' trains nothing; use options, or leave it out",
        "stages[1].teacher: belongs to 'distill run', not to 'quantize'; leave it out",
        "stages[1].of: 'later' is no stage before this one; known here: model, a/b",
        "stages[2].overrides.run_dir: follows from the recipe; leave it out",
        "stages[2].of: nothing can be made of 'q', which a stage 'quantize' makes; set it",
        "stages[2].name: 'q' comes twice; rename one",
        "stages[2].config: missing; name the student's run config (no stage before it writes one)",
    ]
    assert recipe(tmp_path, []).problems() == ["stages: none; name at least one"]


def test_options_are_checked_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = [
        {"name": "sparse", "run": "prune weights", "options": {"ratio": 0.5, "methode": "wanda"}},
        {"name": "none", "run": "prune weights", "options": {"ratio": 1.0}},
    ]
    recipe(tmp_path)
    path = tmp_path / "recipe.yaml"
    tree = {"model": str(tmp_path / "model"), "output_dir": str(tmp_path / "out"), "stages": stages}
    path.write_text(json.dumps(tree))
    assert main(["compress", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("recipe.yaml: stages[0] 'sparse': unrecognized arguments: --methode wanda")
    assert "stages[1] 'none': --ratio: must be above 0 and below 1, got 1" in lines[1]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = recipe(tmp_path, STAGES[2:3])
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(config.tree()))
    assert main(["compress", str(path), "--dry-run", "output_dir=elsewhere"]) == 0
    assert capsys.readouterr().out == (
        f"gptdist prune weights {tmp_path}/model --output elsewhere/sparse --ratio 0.5 --data a --data b\n"
    )


class Runner:
    """Takes the place of the processes: makes each stage's output, or is ended at one."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.dies_at = ""

    def __call__(self, words: list[str]) -> int:
        output = next((Path(words[place + 1]) for place, word in enumerate(words) if word == "--output"), None)
        if output is None:
            output = Path(next(json.loads(word[8:]) for word in words if word.startswith("run_dir=")))
        self.ran.append(output.name)
        output.mkdir(parents=True, exist_ok=True)
        if output.name == self.dies_at:
            raise KeyboardInterrupt
        return 0


def test_the_same_recipe_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [STAGES[0] | {"options": {"target-parameters": 0.5}}, *STAGES[1:3]]
    config = recipe(tmp_path, stages, compare=False)
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(config.tree()))
    runner = Runner()
    monkeypatch.setattr(compress, "_gptdist", runner)
    for dies_at in ("taught", "sparse"):  # each has its output, but not its note
        runner.dies_at = dies_at
        assert main(["compress", str(path)]) == 130
    runner.dies_at = ""
    assert main(["compress", str(path)]) == 0
    # a training goes on by its own command; what appears whole is not made again
    assert runner.ran == ["small", "taught", "taught", "sparse"]
    assert main(["compress", str(path)]) == 0
    assert runner.ran == ["small", "taught", "taught", "sparse"]
    assert "== sparse: done before" in capsys.readouterr().out


def test_a_changed_recipe_is_refused(tmp_path: Path) -> None:
    config = recipe(tmp_path, STAGES[:3])
    commands = stage_commands(config)
    record = RecipeRecord(config)
    commands[1].output.mkdir(parents=True)
    (found,) = record.problems(commands)
    assert f"stages[1] 'taught': {commands[1].output} exists and is not this recipe's" in found
    for index, command in enumerate(commands[:2]):
        record.begin(index, command)
        record.finish(index, command)
    (found,) = RecipeRecord(config).problems(commands)
    assert found == f"stages[0] 'small': {commands[0].output} has gone since it was made; choose another output_dir"
    commands[0].output.mkdir()
    assert list(RecipeRecord(config).problems(commands)) == []
    other = recipe(tmp_path, [STAGES[0] | {"options": {"ffn": 8}}, *STAGES[1:3]])
    (found,) = RecipeRecord(other).problems(stage_commands(other))
    assert found.startswith("stages[0] 'small': was begun with other words (gptdist prune structure ")


def test_a_stage_that_failed_may_be_written_anew(tmp_path: Path) -> None:
    config = recipe(tmp_path, STAGES[:1])
    RecipeRecord(config).begin(0, stage_commands(config)[0])
    other = recipe(tmp_path, [STAGES[0] | {"options": {"ffn": 8}}])
    assert list(RecipeRecord(other).problems(stage_commands(other))) == []
    stage_commands(config)[0].output.mkdir(parents=True)  # it has made something
    (found,) = RecipeRecord(other).problems(stage_commands(other))
    assert "was begun with other words" in found


def test_another_model_is_refused(tmp_path: Path) -> None:
    config = recipe(tmp_path, STAGES[:1])
    record = RecipeRecord(config)
    record.begin(0, stage_commands(config)[0])
    (tmp_path / "model" / "config.json").write_text('{"other": 1}')
    with pytest.raises(ConfigError, match=r"its stages were made of .*/model \(44136fa355b3\), the model now is"):
        RecipeRecord(config)
    record.path.write_text("{")
    with pytest.raises(ConfigError, match=r"recipe\.json: damaged"):
        RecipeRecord(config)
    (tmp_path / "model" / "config.json").unlink()
    (tmp_path / "model").rmdir()
    with pytest.raises(ConfigError, match=r"/model' does not exist; name a run, a checkpoint or a Hugging"):
        RecipeRecord(config)
