"""Where numbers of a run go."""

import importlib.util
from typing import Literal

from gptdist.config.section import Section


class WandbConfig(Section):
    """A run at Weights & Biases. Needs ``pip install 'gptdist[wandb]'``, and for ``online`` a key in WANDB_API_KEY."""

    project: str
    entity: str | None = None
    """Team or user; default: that of the key."""

    mode: Literal["online", "offline"] = "online"
    """``offline`` writes to RUN_DIR/wandb only, to be sent later with ``wandb sync``."""


class TelemetryConfig(Section):
    """Where numbers go beside the console and metrics.jsonl."""

    tensorboard: bool = True
    """Write TensorBoard event files to RUN_DIR/tensorboard."""

    wandb: WandbConfig | None = None
    """Send them to Weights & Biases too; all attempts of a run are one run there."""

    profile_steps: tuple[int, int] | None = None
    """First and last step to trace, as log lines number them: every rank writes what it did to RUN_DIR/profile."""

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        bad = []
        if self.wandb is not None and not self.wandb.project:
            bad.append("telemetry.wandb.project: empty; name a project")
        steps = self.profile_steps
        if steps is not None and not 1 <= steps[0] <= steps[1]:
            bad.append(
                f"telemetry.profile_steps: must be a first step from 1 and a last one from there, got {list(steps)}"
            )
        return bad

    def package_problems(self) -> list[str]:
        """Return what is asked for and not installed on this machine."""
        if self.wandb is None or importlib.util.find_spec("wandb") is not None:
            return []
        return ["telemetry.wandb: the package wandb is not installed; pip install 'gptdist[wandb]', or leave it out"]
