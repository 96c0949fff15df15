"""How long the sequences of a step are: samples may be cut into shorter ones at the beginning of a run."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Self

from gptdist.config.section import Section


class LengthStage(Section):
    """One stage of a sequence-length ramp: every step that begins before its bound cuts its samples."""

    until_samples: int | None = None
    """Bound in samples consumed since the beginning of the run."""

    until_tokens: int | None = None
    """The same in tokens; one ramp uses one unit."""

    seq_length: int
    """Tokens of the pieces; it divides model.seq_length."""

    def bound(self, sample_tokens: int) -> int:
        """Return the first number of consumed samples at which a step begins outside the stage."""
        if self.until_samples is not None:
            return self.until_samples
        assert self.until_tokens is not None, "a stage without a bound is a problem of the config"
        return -(-self.until_tokens // sample_tokens)


@dataclass(frozen=True)
class SeqLengths:
    """Tokens of a sequence as a function of the samples consumed."""

    bounds: tuple[int, ...]
    """Consumed samples from which on a step has the next length."""

    lengths: tuple[int, ...]
    """One more than bounds."""

    @classmethod
    def of(cls, ramp: tuple[LengthStage, ...], sample_tokens: int) -> Self:
        """Lay out the stages of ``ramp``, behind which a sequence is a sample of ``sample_tokens``."""
        bounds = tuple(stage.bound(sample_tokens) for stage in ramp)
        return cls(bounds, (*(stage.seq_length for stage in ramp), sample_tokens))

    def at(self, consumed_samples: int) -> int:
        """Return the tokens of a sequence in the step that begins at ``consumed_samples``."""
        return self.lengths[bisect_right(self.bounds, consumed_samples)]


def length_problems(ramp: tuple[LengthStage, ...], sample_tokens: int) -> list[str]:
    """Return every value of ``batch.seq_length_ramp`` that is out of its range, whatever the layout."""
    bad, begin = [], 0
    for index, stage in enumerate(ramp):
        where = f"batch.seq_length_ramp[{index}]"
        if (stage.until_samples is None) == (stage.until_tokens is None):
            bad.append(f"{where}: needs until_samples or until_tokens, one of them; the stage ends there")
        elif stage.bound(max(sample_tokens, 1)) <= begin:
            bad.append(
                f"{where}: ends at sample {stage.bound(max(sample_tokens, 1))}, but begins at {begin}; give bounds "
                f"that grow, or remove the stage"
            )
        else:
            begin = stage.bound(max(sample_tokens, 1))
        if stage.seq_length < 1 or sample_tokens % stage.seq_length:
            bad.append(
                f"{where}.seq_length: must be at least 1 and divide model.seq_length ({sample_tokens}), so that no "
                f"token is lost, got {stage.seq_length}"
            )
    if len({stage.until_tokens is None for stage in ramp}) > 1:
        bad.append("batch.seq_length_ramp: bounds in samples and in tokens; give all of them in one unit")
    return bad
