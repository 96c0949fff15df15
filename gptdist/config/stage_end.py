"""Stages of a run that end after so many samples or tokens, one behind the other."""

from collections.abc import Sequence

from gptdist.config.section import Section


class EndingStage(Section):
    """A stage of a ramp: it holds for every step that begins before its bound."""

    until_samples: int | None = None
    """Bound in samples consumed since the beginning of the run."""

    until_tokens: int | None = None
    """The same in tokens; one ramp uses one unit."""

    def bound(self, sample_tokens: int) -> int:
        """Return the first number of consumed samples at which a step begins outside the stage."""
        return in_samples(self.until_samples, self.until_tokens, sample_tokens)


def in_samples(samples: int | None, tokens: int | None, sample_tokens: int) -> int:
    """Return a point that is given in samples, or in tokens and rounded up to whole samples of ``sample_tokens``."""
    if samples is not None:
        return samples
    assert tokens is not None, "a point that is not given is a problem of the config"
    return -(-tokens // max(sample_tokens, 1))


def ending_problems(stages: Sequence[EndingStage], where: str, sample_tokens: int) -> list[str]:
    """Return every bound that is missing or not behind the one before; ``where`` is the ramp's place in the config."""
    bad, begin = [], 0
    for index, stage in enumerate(stages):
        if (stage.until_samples is None) == (stage.until_tokens is None):
            bad.append(f"{where}[{index}]: needs until_samples or until_tokens, one of them; the stage ends there")
        elif stage.bound(sample_tokens) <= begin:
            bad.append(
                f"{where}[{index}]: ends at sample {stage.bound(sample_tokens)}, but begins at {begin}; give bounds "
                f"that grow, or remove the stage"
            )
        else:
            begin = stage.bound(sample_tokens)
    if len({stage.until_tokens is None for stage in stages}) > 1:
        bad.append(f"{where}: bounds in samples and in tokens; give all of them in one unit")
    return bad
