"""What becomes of a run's checkpoints."""

from gptdist.config.exportable import export_problems
from gptdist.config.model import ModelConfig
from gptdist.config.protection import ProtectionConfig
from gptdist.config.remote import RemoteConfig
from gptdist.config.retention import KeepConfig
from gptdist.config.section import Section


class CheckpointsConfig(Section):
    """How checkpoints are written and kept."""

    asynchronous: bool = True
    """Go on training while a checkpoint is written: each rank copies what it holds to buffers in the machine's memory,
    12 bytes a parameter with AdamW, shared out among the ranks."""

    host_buffer_bytes: int | None = None
    """The most that a rank takes for these buffers; unset: half of the memory that is free at the first save, shared
    by ``launch.ranks_per_node``. If a rank needs more, training waits while checkpoints are written."""

    max_failed_saves: int = 3
    """So many saves in a row that the disk refuses end the run; before that, a failed one is a warning."""

    keep: KeepConfig = KeepConfig()
    """Which of them stay in the run's folder."""

    remote: RemoteConfig | None = None
    """Where they are copied to; unset is nowhere."""

    exportable: bool = True
    """Whether the run is refused if no Hugging Face class computes its model's function, so that ``gptdist export``
    would be refused at the end; false trains it all the same."""

    protection: ProtectionConfig = ProtectionConfig()
    """Encryption and signatures."""

    def problems(self, *, save_steps: int, eval_steps: int, train_steps: int) -> list[str]:
        """Return every value out of its range or without meaning in this run.

        Args:
            save_steps: the run's interval of checkpoints.
            eval_steps: its interval of validations.
            train_steps: its length.
        """
        bad = self.protection.problems()
        budget = self.host_buffer_bytes
        if budget is not None and not self.asynchronous:
            bad.append("checkpoints.host_buffer_bytes: belongs to asynchronous true, not false; remove it")
        elif budget is not None and budget < 1:
            bad.append(f"checkpoints.host_buffer_bytes: must be at least 1, got {budget}")
        if self.max_failed_saves < 1:
            bad.append(f"checkpoints.max_failed_saves: must be at least 1, got {self.max_failed_saves}")
        run = {"save_steps": save_steps, "eval_steps": eval_steps, "train_steps": train_steps}
        bad += self.keep.problems("checkpoints.keep", **run)
        return bad if self.remote is None else bad + self.remote.problems("checkpoints.remote", **run)

    def export_problems(self, model: ModelConfig) -> list[str]:
        """Return what of ``model`` no Hugging Face class has, unless the run does without."""
        if not self.exportable:
            return []
        return [f"{problem}, or checkpoints.exportable false to train it anyway" for problem in export_problems(model)]

    def package_problems(self) -> list[str]:
        """Return what is asked for and not installed on this machine."""
        return [] if self.remote is None else self.remote.package_problems("checkpoints.remote")
