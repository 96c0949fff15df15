"""How long the sequences of a step are: samples may be cut into shorter ones at the beginning of a run."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Self

from gptdist.config.stage_end import EndingStage, ending_problems


class LengthStage(EndingStage):
    """One stage of a sequence-length ramp: every step that begins before its bound cuts its samples."""

    seq_length: int
    """Tokens of the pieces; it divides model.seq_length."""


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
    return ending_problems(ramp, "batch.seq_length_ramp", sample_tokens) + [
        f"batch.seq_length_ramp[{index}].seq_length: must be at least 1 and divide model.seq_length ({sample_tokens}), "
        f"so that no token is lost, got {stage.seq_length}"
        for index, stage in enumerate(ramp)
        if stage.seq_length < 1 or sample_tokens % stage.seq_length
    ]
