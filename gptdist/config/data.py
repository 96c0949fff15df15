"""What a run trains on."""

from pathlib import Path

from gptdist.config.section import Section, path_problem


class DataSource(Section):
    """One dataset folder written by ``gptdist prep``, and its share of the training samples."""

    path: Path
    """Folder that holds a manifest.json and token shards; relative to the working folder."""

    weight: float = 1.0
    """Share of the samples, in proportion to the other sources' weights."""

    @property
    def name(self) -> str:
        """How logs call the source: the folder's name."""
        return self.path.absolute().name


class DataConfig(Section):
    """The tokenizer, and the sources that are blended."""

    tokenizer: Path
    """Folder of the tokenizer that the shards were made with."""

    sources: tuple[DataSource, ...]
    """What is blended, each by its weight."""

    eval_samples: int = 64
    """Validation samples a source, spread evenly over its validation split; 0 takes all."""

    def problems(self) -> list[str]:
        """Return what is wrong with the section itself, without a look at the disk."""
        bad = [] if self.sources else ["data.sources: empty; name at least one dataset folder"]
        bad += [
            f"data.sources[{index}].weight: must be above 0, got {source.weight}; remove the source instead"
            for index, source in enumerate(self.sources)
            if source.weight <= 0.0
        ]
        names = [source.name for source in self.sources]
        bad += [
            f"data.sources: two folders are called '{name}'; rename one, or list it once with the summed weight"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        if self.eval_samples < 0:
            bad.append(f"data.eval_samples: must be at least 0, got {self.eval_samples}")
        return bad

    def path_problems(self) -> list[str]:
        """Return every folder that is not there; looks at the disk."""
        prepare = "prepare it with 'gptdist prep run', or change the path"
        bad = path_problem("data.tokenizer", self.tokenizer, kind="folder", advice=prepare)
        for index, source in enumerate(self.sources):
            bad += path_problem(f"data.sources[{index}].path", source.path, kind="folder", advice=prepare)
        return bad
