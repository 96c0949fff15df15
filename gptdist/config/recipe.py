"""A recipe: what is made of a model, one stage after the other."""

import re
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from gptdist.config.section import Section

StageKind = Literal["prune weights", "prune structure", "prune units", "distill run", "finetune", "quantize", "export"]
"""Sub-commands that make a model of a model."""

CUTS = ("prune structure", "prune units")
"""Those that change shapes, and write the config of a run that goes on."""

TRAINS = ("distill run", "finetune")
"""Those that train: the same command again goes on where it was ended."""

MADE_LAST = ("quantize", "export")
"""Those whose output no other stage reads."""

START = "model"
"""What a stage's ``of`` and ``teacher`` call the recipe's own model."""

SET_BY_RECIPE = ("output", "to", "student", "teacher", "write-config")
"""Options that follow from the stage's place in the recipe."""


class StageConfig(Section):
    """One stage: a command of ``gptdist``, and what is special about it."""

    name: str
    """Of the stage, and of the folder in ``output_dir`` that it makes."""

    run: StageKind
    """The command."""

    of: str | None = None
    """The stage whose model is taken, or ``model``; default: the stage before."""

    options: dict[str, bool | int | float | str | list[str]] = Field(default_factory=dict)
    """Of the command, by their names without dashes before; true is an option without a value."""

    config: Path | None = None
    """Of a stage that distils: the student's run config; default: what the last stage wrote that cut the model."""

    teacher: str | None = None
    """Of a stage that distils: the stage, or ``model``, that is learnt from; default: ``model``."""

    overrides: dict[str, Any] = Field(default_factory=dict)
    """Of a stage that trains: values of its run config, by their dotted names."""

    def problems(self, where: str) -> list[str]:
        """Return what does not belong to such a stage."""
        is_plain = re.fullmatch(r"\w[\w.-]*", self.name) is not None and self.name != START  # it becomes a folder's
        bad = [] if is_plain else [f"{where}.name: must be letters, digits, '_', '-' and '.', got '{self.name}'"]
        bad += [
            f"{where}.options.{name}: follows from the recipe; leave it out"
            for name in SET_BY_RECIPE
            if name in self.options
        ]
        if self.run != "distill run":
            bad += [
                f"{where}.{key}: belongs to 'distill run', not to '{self.run}'; leave it out"
                for key in ("config", "teacher")
                if getattr(self, key) is not None
            ]
        if self.overrides and self.run not in TRAINS:
            bad.append(f"{where}.overrides: '{self.run}' trains nothing; use options, or leave it out")
        bad += [
            f"{where}.overrides.{key}: follows from the recipe; leave it out"
            for key in ("name", "run_dir")
            if key in self.overrides
        ]
        return bad


class RecipeConfig(Section):
    """Stages that make a smaller model of a trained one."""

    model: Path
    """What it begins with: run, checkpoint or Hugging Face folder; relative to the working folder."""

    output_dir: Path
    """Folder of the stages' outputs."""

    stages: tuple[StageConfig, ...]

    compare: bool = True
    """Whether all models are put into one table at the end, and into ``compare.html``."""

    def problems(self) -> list[str]:
        """Return every reason why the recipe cannot be followed; looks at no disk."""
        bad = [] if self.stages else ["stages: none; name at least one"]
        before: dict[str, StageConfig] = {}
        has_config = False
        for index, stage in enumerate(self.stages):
            where = f"stages[{index}]"
            bad += stage.problems(where)
            bad += [f"{where}.{key}: {problem}" for key, problem in _reference_problems(stage, before)]
            if stage.name in before:
                bad.append(f"{where}.name: '{stage.name}' comes twice; rename one")
            has_config = has_config or stage.run in CUTS
            if stage.run == "distill run" and stage.config is None and not has_config:
                bad.append(f"{where}.config: missing; name the student's run config (no stage before it writes one)")
            before[stage.name] = stage
        return bad


def _reference_problems(stage: StageConfig, before: dict[str, StageConfig]) -> list[tuple[str, str]]:
    """Return each of ``of`` and ``teacher`` that names no model."""
    bad = []
    taken = {"of": stage.of or (list(before)[-1] if before else START), "teacher": stage.teacher or START}
    for key, name in taken.items():
        if name == START:
            continue
        if name not in before:
            known = ", ".join([START, *before])
            bad.append((key, f"'{name}' is no stage before this one; known here: {known}"))
        elif before[name].run in MADE_LAST:
            bad.append((key, f"nothing can be made of '{name}', which a stage '{before[name].run}' makes; set it"))
    return bad


assert set(TRAINS) | set(MADE_LAST) <= set(get_args(StageKind)), "a kind is misspelt"
