"""A run at Weights & Biases, one for all attempts."""

import logging
import secrets
from pathlib import Path
from typing import Any

from gptdist.config.telemetry import WandbConfig

logger = logging.getLogger(__name__)

ID_NAME = "wandb.id"
INIT_TIMEOUT_SECONDS = 30.0
"""How long the start waits for the service; the other ranks wait with it."""


class WandbRun:
    """Where numbers are sent; a service that does not answer costs a warning and no training."""

    def __init__(self, folder: Path, name: str, settings: WandbConfig, config: dict[str, Any]) -> None:
        """Begin, or go on with the run whose id ``folder`` holds.

        Args:
            folder: of the run.
            name: shown there.
            settings: of the config.
            config: the resolved config as plain data.
        """
        import wandb  # seconds to import, and only rank 0 of runs that ask for it needs it

        path = folder / ID_NAME
        if not path.exists():
            path.write_text(secrets.token_hex(8))
        online = settings.mode == "online"
        self._run: Any = None
        try:
            self._run = wandb.init(
                project=settings.project,
                entity=settings.entity,
                name=name,
                id=path.read_text().strip(),
                resume="allow" if online else None,
                mode=settings.mode,
                dir=str(folder),
                config=config,
                settings=wandb.Settings(console="off", silent=True, init_timeout=INIT_TIMEOUT_SECONDS),
            )
        except wandb.Error as error:
            logger.warning("telemetry.wandb: %s; training goes on without it, metrics.jsonl has all numbers", error)
            return
        # A resumed run repeats steps, which W&B's own counter would not take.
        self._run.define_metric("*", step_metric="step")

    def log(self, kind: str, step: int, numbers: dict[str, Any]) -> None:
        """Send the ``numbers`` of ``step``, each as ``kind/name``."""
        if self._run is not None:
            known = {f"{kind}/{name}": value for name, value in numbers.items() if isinstance(value, int | float)}
            self._run.log({"step": step, **known})

    def close(self) -> None:
        """Send what is left."""
        if self._run is not None:
            self._run.finish()
