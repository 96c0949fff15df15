"""Which checkpoints stay."""

import math

from gptdist.config.section import Section


class KeepConfig(Section):
    """Rules of which each keeps checkpoints; what none of them keeps is deleted. Without any rule everything stays."""

    last: int | None = None
    """So many of the newest."""

    every_steps: int | None = None
    """Those of steps that are multiples of this, for good."""

    best: int | None = None
    """So many with the lowest validation loss, of those saved at a step with a validation."""

    for_hours: float | None = None
    """Every one that is younger."""

    @property
    def keeps_everything(self) -> bool:
        """Whether there is no rule."""
        return all(value is None for value in self.tree().values())

    def problems(self, where: str, *, save_steps: int, eval_steps: int, train_steps: int) -> list[str]:
        """Return every value out of its range, and every rule that no checkpoint of the run could fall under.

        Args:
            where: config path of the section.
            save_steps: the run's interval of checkpoints.
            eval_steps: its interval of validations.
            train_steps: its length.
        """
        bad = [
            f"{where}.{name}: must be at least 1, got {value}; leave the rule out to have none"
            for name in ("last", "every_steps", "best")
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if self.for_hours is not None and self.for_hours <= 0.0:
            bad.append(f"{where}.for_hours: must be above 0, got {self.for_hours}; leave the rule out to have none")
        if bad or min(save_steps, eval_steps) < 1:
            return bad
        if self.every_steps is not None and math.lcm(self.every_steps, save_steps) > train_steps:
            bad.append(
                f"{where}.every_steps: no step up to training.train_steps ({train_steps}) is a multiple of "
                f"{self.every_steps} and of intervals.save_steps ({save_steps}); set a multiple of save_steps"
            )
        if self.best is not None and math.lcm(eval_steps, save_steps) > train_steps:
            bad.append(
                f"{where}.best: no step up to training.train_steps ({train_steps}) has a validation "
                f"(intervals.eval_steps: {eval_steps}) and a checkpoint (intervals.save_steps: {save_steps}); "
                f"set save_steps to a multiple of eval_steps"
            )
        return bad
