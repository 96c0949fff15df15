"""What a launch runs: commands and environment, decided before anything starts."""

import shlex
from dataclasses import dataclass

TORCHRUN_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
"""torchrun passes these on to the ranks; without SIGUSR1 in the list it would die of it."""


@dataclass(frozen=True)
class NodeCommand:
    """One process to start on one node."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    """Variables set for it, on top of the inherited ones."""

    def shell_line(self) -> str:
        """Return the command as a line to paste into a shell; it does exactly what the launch does."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment]
        return " ".join([*settings, *(shlex.quote(word) for word in self.argv)])
