"""The launch section: processes on each machine, and what is done when they fail, hang, or run out of time."""

from gptdist.config.section import Section


class LaunchConfig(Section):
    """How many processes a machine has, and who looks after them."""

    ranks_per_node: int = 1
    """Processes on each machine: one for each GPU, or a few on CPU."""

    threads_per_rank: int | None = None
    """CPU threads of each process; default: the machine's cores shared out."""

    max_restarts: int = 3
    """How often in a row a job that failed or hung begins again by itself without having come to a later checkpoint in
    between; 0 is never. Where two attempts in a row fail in the same step, the job ends before that."""

    restart_wait_seconds: float = 5.0
    """Before the first restart in a row; doubled for each more, up to five minutes."""

    stall_seconds: float = 600.0
    """After so long without any progress of a rank the watchdog takes everybody's stacks and ends the job; more than
    the longest step, evaluation of a batch, or wait for a checkpoint."""

    startup_seconds: float = 1800.0
    """Likewise until the first step: imports, meeting the other ranks, reading the checkpoint."""

    shutdown_seconds: float = 60.0
    """How long ranks may take to save after a signal before they are killed; where the one who sends the signal waits
    less (torchrun by itself: 30), that counts."""

    time_limit_minutes: float | None = None
    """Wall-clock time of one launch, restarts included; unset is none. The run stops in time to save."""

    save_margin_seconds: float = 120.0
    """How long before the time limit the run stops: the longest step and the writing of a checkpoint."""

    @property
    def stop_after_seconds(self) -> float | None:
        """How long after its beginning a launch stops, if it has a time limit."""
        return None if self.time_limit_minutes is None else self.time_limit_minutes * 60 - self.save_margin_seconds

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        bad = [
            f"launch.{name}: must be at least 1, got {value}"
            for name, value in (("ranks_per_node", self.ranks_per_node), ("threads_per_rank", self.threads_per_rank))
            if value is not None and value < 1
        ]
        bad += [
            f"launch.{name}: must be at least 0, got {value:g}"
            for name, value in (
                ("max_restarts", self.max_restarts),
                ("restart_wait_seconds", self.restart_wait_seconds),
                ("save_margin_seconds", self.save_margin_seconds),
            )
            if value < 0
        ]
        bad += [
            f"launch.{name}: must be above 0, got {value:g}"
            for name, value in (
                ("stall_seconds", self.stall_seconds),
                ("startup_seconds", self.startup_seconds),
                ("shutdown_seconds", self.shutdown_seconds),
            )
            if value <= 0
        ]
        limit = self.time_limit_minutes
        if limit is not None and limit * 60 <= self.save_margin_seconds:
            bad.append(
                f"launch.time_limit_minutes: {limit:g} leaves nothing before launch.save_margin_seconds "
                f"({self.save_margin_seconds:g}); raise it, or lower the margin"
            )
        return bad
