"""A histogram over magnitudes: ten bins a decade, so that a median is read off to within a seventh."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

_PREFERRED = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
"""Renard's series R10: round numbers in steps of 10 ** 0.1."""

_DECADES = 12
EDGES: npt.NDArray[np.int64] = np.unique(
    [round(step * 10**decade) for decade in range(_DECADES) for step in _PREFERRED]
).astype(np.int64)
"""Bin i holds EDGES[i] ≤ x < EDGES[i + 1]; what is below 1 is counted apart."""


@dataclass
class LogHistogram:
    """Counts of whole numbers by magnitude."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(EDGES.size, np.int64))
    zeros: int = 0
    total: int = 0
    """Sum of the numbers."""

    def add(self, values: npt.NDArray[np.int64]) -> None:
        """Count ``values``."""
        places = np.searchsorted(EDGES, values, side="right") - 1
        self.zeros += int(np.count_nonzero(places < 0))
        self.counts += np.bincount(places[places >= 0], minlength=EDGES.size)
        self.total += int(values.sum())

    @property
    def size(self) -> int:
        """How many numbers were counted."""
        return int(self.counts.sum()) + self.zeros

    def quantile(self, share: float) -> int:
        """Return the lower edge of the bin in which ``share`` of the numbers is reached; 0 without numbers."""
        place = self._reached(share)
        return 0 if place < 0 else int(EDGES[place])

    def bound(self, share: float) -> int:
        """Return the end of that bin: at least ``share`` of the numbers are below."""
        place = self._reached(share)
        return int(EDGES[min(place + 1, EDGES.size - 1)])

    def _reached(self, share: float) -> int:
        wanted = share * self.size
        if wanted <= self.zeros:
            return -1
        return int(np.searchsorted(self.zeros + np.cumsum(self.counts), wanted))
