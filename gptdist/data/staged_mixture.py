"""Mixtures that follow each other: other shares from some sample on, while every source goes on where it was.

Each stage is a ``Mixture`` that counts samples from the stage's first; its shares hold exactly in every block from
there. What a source gave in earlier stages is counted, not walked, so sample i is still a pure function of (seed, i).
"""

from bisect import bisect_right
from collections.abc import Sequence

from gptdist.data.mixture import Mixture


class StagedMixture:
    """Shares of several sources in one stream of samples, stage by stage."""

    def __init__(self, mixtures: Sequence[Mixture], first_samples: Sequence[int]) -> None:
        """Let each of ``mixtures`` but the first begin at the sample that ``first_samples`` says."""
        assert len(first_samples) + 1 == len(mixtures), "every stage but the first has a beginning"
        self._mixtures = tuple(mixtures)
        self._begins = (0, *first_samples)
        before = [(0,) * len(mixtures[0].counts)]
        for mixture, begin, end in zip(mixtures, self._begins, self._begins[1:], strict=False):
            taken = mixture.counts_among(end - begin)
            before.append(tuple(a + b for a, b in zip(before[-1], taken, strict=True)))
        self._before = tuple(before)

    def _stage(self, sample: int) -> int:
        return bisect_right(self._begins, sample) - 1

    def shares_at(self, sample: int) -> tuple[float, ...]:
        """Return the fraction of the samples that each source has in the stage of ``sample``."""
        return self._mixtures[self._stage(sample)].shares

    def locate(self, sample: int) -> tuple[int, int]:
        """Return the source of sample ``sample``, and how many samples of that source come before it."""
        stage = self._stage(sample)
        source, number = self._mixtures[stage].locate(sample - self._begins[stage])
        return source, self._before[stage][source] + number

    def sample_of(self, source: int, number: int) -> int | None:
        """Return which sample is number ``number`` of its source, from 0; none if the source never comes so far."""
        stage = bisect_right([before[source] for before in self._before], number) - 1
        mixture = self._mixtures[stage]
        if not mixture.counts[source]:
            return None
        return self._begins[stage] + mixture.sample_of(source, number - self._before[stage][source])

    def counts_among(self, samples: int) -> tuple[int, ...]:
        """Return how many of the first ``samples`` samples each source has, exactly."""
        stage = self._stage(samples)
        taken = self._mixtures[stage].counts_among(samples - self._begins[stage])
        return tuple(a + b for a, b in zip(self._before[stage], taken, strict=True))
