"""What a recipe's stages are as commands, and which of them are done; no torch."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.manifest import MANIFEST_NAME
from gptdist.config.recipe import CUTS, START, TRAINS, RecipeConfig, StageConfig
from gptdist.durable import write_whole
from gptdist.errors import ConfigError

RECORD_FILE = "recipe.json"
"""In ``output_dir``: which stages were begun and done, with which words."""

COMPARED = "compare.html"


@dataclass(frozen=True)
class StageCommand:
    """A stage as words of ``gptdist``."""

    stage: StageConfig
    words: tuple[str, ...]
    output: Path

    @property
    def can_go_on(self) -> bool:
        """Whether the same words again go on with what is there, rather than refuse it."""
        return self.stage.run in TRAINS


def stage_commands(recipe: RecipeConfig) -> list[StageCommand]:
    """Return the commands of all stages, in order; the recipe has no problems."""
    outputs: dict[str, Path] = {START: recipe.model}
    has_zeros: dict[str, bool] = {START: False}
    student_config = Path()
    commands = []
    before = START
    for stage in recipe.stages:
        source, output = stage.of or before, recipe.output_dir / stage.name
        keeps_zeros = has_zeros[source]
        match stage.run:
            case "prune structure" | "prune units":
                student_config = output.with_suffix(".yaml")
                words = [*_made(stage, outputs[source], output), "--write-config", str(student_config)]
            case "distill run":
                teacher = outputs[stage.teacher or START]
                words = ["distill", "run", str(stage.config or student_config), "--teacher", str(teacher)]
                words += ["--student", str(outputs[source]), *_options(stage.options)]
                words += _overrides(stage, {"name": stage.name, "run_dir": str(output)}, keeps_zeros=keeps_zeros)
            case "finetune":
                words = _made(stage, outputs[source], output)
                words += _overrides(stage, {}, keeps_zeros=keeps_zeros)
            case "export":
                words = [*_made(stage, outputs[source], output), "--to", "hf"]
            case _:
                words = _made(stage, outputs[source], output)
        commands.append(StageCommand(stage, tuple(words), output))
        outputs[stage.name] = output
        has_zeros[stage.name] = stage.run == "prune weights" or (keeps_zeros and stage.run not in CUTS)
        before = stage.name
    return commands


def _made(stage: StageConfig, source: Path, output: Path) -> list[str]:
    return [*stage.run.split(), str(source), "--output", str(output), *_options(stage.options)]


def _options(options: Mapping[str, Any]) -> list[str]:
    """Return options as words; what is false is left out."""
    words = []
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not False:
            for one in value if isinstance(value, list) else [value]:
                words += [f"--{name}", str(one)]
    return words


def _overrides(stage: StageConfig, ours: Mapping[str, Any], *, keeps_zeros: bool) -> list[str]:
    """Return values of the run config as words; zeros that pruning made stay unless the recipe says otherwise."""
    values = {**ours, **({"training.keep_zeros": True} if keeps_zeros else {}), **stage.overrides}
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]  # JSON is YAML


class RecipeRecord:
    """Which stages were begun and done; kept beside their outputs, so that the same recipe goes on."""

    def __init__(self, recipe: RecipeConfig) -> None:
        """Read what is there.

        Raises:
            ConfigError: the folder holds another model's stages, or its record is damaged.
        """
        self.path = recipe.output_dir / RECORD_FILE
        self._model = {"path": str(recipe.model), "sha256": _model_digest(recipe.model)}
        self._stages: list[dict[str, Any]] = []
        if not self.path.exists():
            return
        try:
            tree = json.loads(self.path.read_text(encoding="utf-8"))
            model, self._stages = dict(tree["model"]), [dict(stage) for stage in tree["stages"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError([f"{self.path}: damaged ({error}); choose another output_dir"]) from None
        if model != self._model:
            raise ConfigError(
                [
                    f"{self.path}: its stages were made of {model.get('path')} ({str(model.get('sha256'))[:12]}), the "
                    f"model now is {recipe.model} ({self._model['sha256'][:12]}); choose another output_dir"
                ]
            )

    def problems(self, commands: Sequence[StageCommand]) -> Iterator[str]:
        """Yield what does not let the stages go on as they are now written."""
        for index, command in enumerate(commands):
            where, output = f"stages[{index}] '{command.stage.name}'", command.output
            if index < len(self._stages):
                if self._stages[index]["words"] != list(command.words) and (self.is_done(index) or output.exists()):
                    yield (
                        f"{where}: was begun with other words (gptdist {' '.join(self._stages[index]['words'])}); "
                        f"choose another output_dir, or remove {output}, what was made of it and {self.path}"
                    )
                elif self.is_done(index) and not output.exists():
                    yield f"{where}: {output} has gone since it was made; choose another output_dir"
            elif output.exists():
                yield f"{where}: {output} exists and is not this recipe's; remove it, or choose another output_dir"

    def is_done(self, index: int) -> bool:
        """Whether stage ``index`` was done."""
        return index < len(self._stages) and bool(self._stages[index]["done"])

    def was_begun(self, index: int) -> bool:
        """Whether stage ``index`` was begun."""
        return index < len(self._stages)

    def begin(self, index: int, command: StageCommand) -> None:
        """Note that a stage is about to begin."""
        self._note(index, command, done=False)

    def finish(self, index: int, command: StageCommand) -> None:
        """Note that a stage is done."""
        self._note(index, command, done=True)

    def _note(self, index: int, command: StageCommand, *, done: bool) -> None:
        self._stages[index:] = [{"name": command.stage.name, "words": list(command.words), "done": done}]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        tree = {"model": self._model, "stages": self._stages}
        write_whole(self.path, (json.dumps(tree, indent=2) + "\n").encode())


def _model_digest(model: Path) -> str:
    """Return what a model is known by: the hash of what names and hashes its files, or of its config.

    Raises:
        ConfigError: there is none.
        CheckpointError: the run has no whole checkpoint.
    """
    if not model.exists():
        raise ConfigError([f"model: '{model}' does not exist; name a run, a checkpoint or a Hugging Face folder"])
    for name in ("SHA256SUMS", "export.json", "config.json"):
        if (model / name).is_file() and (model / "config.json").is_file():
            return hashlib.sha256((model / name).read_bytes()).hexdigest()
    return hashlib.sha256((resolve_checkpoint(model) / MANIFEST_NAME).read_bytes()).hexdigest()
