"""Which tokens sample ``i`` of a run is made of, as a pure function of (seed, i).

Sample ``i`` belongs to a source (see ``mixture``). The n-th sample of a source lies in epoch ``n // windows``, and a
permutation keyed by seed, source and epoch says which window of ``seq_length`` tokens it is. Nothing is built at
start-up, and nothing but the shards' maps is held in memory, however large the corpus.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from gptdist.data.mixture import Mixture
from gptdist.data.permutation import KeyedPermutation
from gptdist.data.staged_mixture import StagedMixture
from gptdist.errors import DataError


@dataclass(frozen=True)
class SampleAddress:
    """Where the tokens of one sample are."""

    source: int
    """Index of the source."""

    epoch: int
    """How many times all windows of the source came before."""

    first_token: int
    """Place in the source's token stream; the sample is ``seq_length`` tokens from here, and one more as label."""


def num_windows(num_tokens: int, seq_length: int) -> int:
    """Return how many samples a stream of tokens yields; each also needs the token after its last one."""
    return max(0, (num_tokens - 1) // seq_length)


class SampleOrder:
    """The order of all samples of a run."""

    def __init__(
        self,
        names: Sequence[str],
        tokens: Sequence[int],
        weights: Sequence[float],
        *,
        seq_length: int,
        seed: int,
        stages: Sequence[tuple[int, Sequence[float]]] = (),
    ) -> None:
        """Order the windows of sources with these names, token counts and weights.

        Each of ``stages`` is the sample from which on other weights hold, and these.

        Raises:
            DataError: a source is shorter than one sample.
        """
        for name, count in zip(names, tokens, strict=True):
            if not num_windows(count, seq_length):
                raise DataError(
                    f"data.sources: '{name}' has {count} tokens, less than one sample of {seq_length} + 1; "
                    f"prepare more documents or shorten model.seq_length"
                )
        self.names = tuple(names)
        self.tokens = tuple(tokens)
        self.windows = tuple(num_windows(count, seq_length) for count in tokens)
        mixtures = [Mixture(some, seed, names) for some in (weights, *(later for _, later in stages))]
        self.mixture = StagedMixture(mixtures, [first for first, _ in stages])
        self._seq_length = seq_length
        self._seed = seed
        self._permutation = lru_cache(maxsize=2 * len(names))(self._make_permutation)

    def _make_permutation(self, source: int, epoch: int) -> KeyedPermutation:
        return KeyedPermutation(self.windows[source], f"{self._seed}/windows/{self.names[source]}/{epoch}")

    def address(self, sample: int) -> SampleAddress:
        """Return where sample ``sample`` is; samples count from 0."""
        source, number = self.mixture.locate(sample)
        epoch, window = self.window(source, number)
        return SampleAddress(source=source, epoch=epoch, first_token=window * self._seq_length)

    def window(self, source: int, number: int) -> tuple[int, int]:
        """Return epoch and window of sample ``number`` of a source, both from 0."""
        epoch, place = divmod(number, self.windows[source])
        return epoch, self._permutation(source, epoch)[place]

    def most_samples(self, limits: Sequence[int | None]) -> int | None:
        """Return the longest run, in samples, that takes at most ``limits[k]`` of source k; none if nothing limits."""
        ends = [self.mixture.sample_of(source, limit) for source, limit in enumerate(limits) if limit is not None]
        return min((end for end in ends if end is not None), default=None)


def evaluation_windows(num_tokens: int, seq_length: int, samples: int) -> list[int]:
    """Return first tokens of ``samples`` windows spread evenly over a stream; all of them for 0 or too many."""
    windows = num_windows(num_tokens, seq_length)
    count = windows if not samples else min(samples, windows)
    return [seq_length * (index * windows // count) for index in range(count)]
