"""What a run trains on."""

from pathlib import Path

from gptdist.config.data_stages import DataStage
from gptdist.config.loss_mask import LossMaskConfig
from gptdist.config.section import Section, path_problem
from gptdist.config.validation import ValidationSet, set_problems

PREPARE = "prepare it with 'gptdist prep run', or change the path"


class DataSource(Section):
    """One dataset folder written by ``gptdist prep``, and its share of the training samples."""

    path: Path
    """Folder that holds a manifest.json and token shards; relative to the working folder."""

    weight: float | None = None
    """Share of the samples, in proportion to the other sources' weights; unset is 1. With ``data.temperature`` the
    share also follows from the source's size, and this is a factor on it."""

    max_epochs: float | None = None
    """Most times that the run may read the source from end to end, in whole or in part; unset is no limit. A run that
    would read it more often is refused before it starts."""

    @property
    def name(self) -> str:
        """How logs call the source: the folder's name."""
        return self.path.absolute().name

    @property
    def relative_weight(self) -> float:
        """The weight, or what stands for an unset one."""
        return 1.0 if self.weight is None else self.weight

    def problems(self, where: str, *, comes_later: bool = False) -> list[str]:
        """Return every value out of its range.

        Args:
            where: the section's place in the config.
            comes_later: whether a stage gives the source a weight.
        """
        bad = []
        if self.weight is not None and (self.weight < 0.0 or (self.weight == 0.0 and not comes_later)):
            bad.append(
                f"{where}.weight: must be above 0, got {self.weight}; remove the source instead, or give it a weight "
                f"in one of data.stages"
            )
        if self.max_epochs is not None and self.max_epochs <= 0.0:
            bad.append(f"{where}.max_epochs: must be above 0, got {self.max_epochs}; leave it out for no limit")
        return bad


class DataConfig(Section):
    """The tokenizer, and the sources that are blended."""

    tokenizer: Path
    """Folder of the tokenizer that the shards were made with."""

    sources: tuple[DataSource, ...]
    """What is blended, each by its weight."""

    temperature: float | None = None
    """Unset: shares go by the weights alone. T: they go by weight x (training tokens of the source)^(1/T), so that 1
    takes every source in proportion to its size, and a larger value takes more of the small ones."""

    stages: tuple[DataStage, ...] = ()
    """Other weights from some point of the run on, in their order; a source goes on where it was."""

    separate_documents: bool = False
    """Whether a token attends to its own document only, and positions begin anew in each; else a sample is one text."""

    loss_mask: LossMaskConfig = LossMaskConfig()
    """Which tokens count in the loss, of training and of validation."""

    eval_samples: int = 64
    """Validation samples a source, spread evenly over its validation split; 0 takes all."""

    validation: tuple[ValidationSet, ...] = ()
    """Named sets that are measured beside the sources' validation splits."""

    validation_set: str | None = None
    """Name of the set whose loss is the run's ``validation_loss``, in checkpoints and for early stopping; unset: the
    sources' validation splits, weighted as in training."""

    def problems(self) -> list[str]:
        """Return what is wrong with the section itself, without a look at the disk."""
        bad = [] if self.sources else ["data.sources: empty; name at least one dataset folder"]
        for index, source in enumerate(self.sources):
            comes_later = any(stage.weights.get(source.name, 0.0) > 0.0 for stage in self.stages)
            bad += source.problems(f"data.sources[{index}]", comes_later=comes_later)
        if self.sources and all(source.weight == 0.0 for source in self.sources):
            bad.append("data.sources: every weight is 0 at the beginning of the run; give one to a source")
        names = [source.name for source in self.sources]
        bad += [
            f"data.sources: two folders are called '{name}'; rename one, or list it once with the summed weight"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        if self.temperature is not None and self.temperature < 1.0:
            bad.append(
                f"data.temperature: must be at least 1, got {self.temperature}; 1 takes sources by their size, "
                f"unset by their weight alone"
            )
        if self.eval_samples < 0:
            bad.append(f"data.eval_samples: must be at least 0, got {self.eval_samples}; 0 takes all")
        bad += set_problems(self.validation, self.validation_set, names)
        return bad

    def path_problems(self) -> list[str]:
        """Return every folder that is not there; looks at the disk."""
        bad = path_problem("data.tokenizer", self.tokenizer, kind="folder", advice=PREPARE) + self.source_problems()
        for index, one in enumerate(self.validation):
            bad += path_problem(f"data.validation[{index}].path", one.path, kind="folder", advice=PREPARE)
        return bad

    def source_problems(self, advice: str = PREPARE) -> list[str]:
        """Return every source's folder that is not there, with ``advice``; looks at the disk."""
        bad = []
        for index, source in enumerate(self.sources):
            bad += path_problem(f"data.sources[{index}].path", source.path, kind="folder", advice=advice)
        return bad
