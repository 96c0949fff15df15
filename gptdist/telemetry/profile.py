"""A trace of some steps, for chrome://tracing, Perfetto or TensorBoard."""

import contextlib
import logging
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

PROFILE_FOLDER = "profile"


class StepProfiler:
    """Record what each rank does in the steps ``first`` to ``last``, as log lines number them.

    Args:
        folder: of the run; ``profile/steps_00000005_00000007_rank_0.json.gz`` gets what rank 0 did.
        steps: first and last; None records nothing.
        rank: this one.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None, rank: int) -> None:
        self._steps = steps
        self._folder, self._rank = folder / PROFILE_FOLDER, rank
        self._profiler: Any = None
        self._first = 0

    def step(self, number: int) -> contextlib.AbstractContextManager[Any]:
        """Return what surrounds step ``number``."""
        if self._steps is None or not self._steps[0] <= number <= self._steps[1]:
            return contextlib.nullcontext()
        return self._recorded(number, self._steps[1])

    @contextlib.contextmanager
    def _recorded(self, number: int, last: int) -> Any:
        if self._profiler is None:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                kinds.append(torch.profiler.ProfilerActivity.CUDA)
            self._first = number  # of this attempt: a resumed run may begin in the middle
            self._profiler = torch.profiler.profile(activities=kinds)
            self._profiler.start()
        with torch.profiler.record_function(f"step {number}"):
            yield
        if number == last:
            self.close(number)

    def close(self, number: int) -> None:
        """Write what was recorded up to step ``number``, if anything was."""
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"steps_{self._first:08d}_{number:08d}_rank_{self._rank}.json.gz"
        profiler.export_chrome_trace(str(path))
        if self._rank == 0:
            logger.info("profile of steps %d to %d: %s", self._first, number, path)
