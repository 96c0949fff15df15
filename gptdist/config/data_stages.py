"""Other weights of the sources from some point of a run on."""

from collections.abc import Sequence

from gptdist.config.section import Section
from gptdist.config.stage_end import in_samples


class DataStage(Section):
    """What is blended from a point on, to the next stage or the run's end."""

    from_samples: int | None = None
    """Samples consumed before it."""

    from_tokens: int | None = None
    """The same in tokens, rounded up to whole samples; all stages use one unit."""

    weights: dict[str, float]
    """Weight of each source, by its name; one that is not named is not read in this stage."""

    def first_sample(self, seq_length: int) -> int:
        """Return the first sample of the stage."""
        return in_samples(self.from_samples, self.from_tokens, seq_length)


def stage_problems(stages: Sequence[DataStage], names: Sequence[str], seq_length: int) -> list[str]:
    """Return every value of ``data.stages`` that is out of its range, for sources with these ``names``."""
    bad, before = [], 0
    for index, stage in enumerate(stages):
        where = f"data.stages[{index}]"
        if (stage.from_samples is None) == (stage.from_tokens is None):
            bad.append(f"{where}: needs from_samples or from_tokens, one of them; the stage begins there")
        elif stage.first_sample(seq_length) <= before:
            bad.append(
                f"{where}: begins at sample {stage.first_sample(seq_length)}, not behind {before}; give beginnings "
                f"that grow, or remove the stage"
            )
        else:
            before = stage.first_sample(seq_length)
        bad += [
            f"{where}.weights: '{name}' is no source; name some of {', '.join(names)}"
            for name in stage.weights
            if name not in names
        ]
        bad += [
            f"{where}.weights.{name}: must be at least 0, got {weight}"
            for name, weight in stage.weights.items()
            if weight < 0.0
        ]
        if not any(weight > 0.0 for weight in stage.weights.values()):
            bad.append(f"{where}.weights: no source has a weight above 0; give one to a source")
    if len({stage.from_tokens is None for stage in stages}) > 1:
        bad.append("data.stages: beginnings in samples and in tokens; give all of them in one unit")
    return bad
