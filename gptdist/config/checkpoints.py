"""What becomes of a run's checkpoints."""

from gptdist.config.retention import KeepConfig
from gptdist.config.section import Section


class CheckpointsConfig(Section):
    """How checkpoints are kept."""

    keep: KeepConfig = KeepConfig()
    """Which of them stay in the run's folder."""

    def problems(self, *, save_steps: int, eval_steps: int, train_steps: int) -> list[str]:
        """Return every value out of its range or without meaning in this run.

        Args:
            save_steps: the run's interval of checkpoints.
            eval_steps: its interval of validations.
            train_steps: its length.
        """
        return self.keep.problems(
            "checkpoints.keep", save_steps=save_steps, eval_steps=eval_steps, train_steps=train_steps
        )
