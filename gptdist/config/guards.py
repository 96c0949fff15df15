"""When a step is not taken, and when a run goes back to an older checkpoint."""

from gptdist.config.section import Section


class GuardsConfig(Section):
    """A step whose loss or gradient is not finite, or far above those before it, leaves the weights as they are."""

    max_z_score: float | None = 10.0
    """Standard deviations above the mean of the window at which loss or gradient norm is a spike; null: none is one.
    What is not finite is refused in any case."""

    window_steps: int = 128
    """Last good steps that mean and standard deviation are taken of."""

    min_steps: int = 64
    """Good steps that have to be in the window before anything is a spike."""

    min_deviation: float = 0.02
    """Least standard deviation, as a fraction of the mean: a window that hardly varies makes no spike of little."""

    max_skips: int = 4
    """Skipped steps allowed among the last window_steps; at one more the run goes back to the newest checkpoint before
    them, and on with the data behind them."""

    max_rewinds: int = 5
    """How often a run may do that; where it would once more, it ends."""

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        bad = []
        if self.max_z_score is not None and self.max_z_score <= 0.0:
            bad.append(f"guards.max_z_score: must be above 0, got {self.max_z_score}; set null for no spikes")
        if self.min_deviation <= 0.0:
            bad.append(f"guards.min_deviation: must be above 0, got {self.min_deviation}")
        if self.window_steps < 2:
            bad.append(f"guards.window_steps: must be at least 2, got {self.window_steps}")
        elif not 2 <= self.min_steps <= self.window_steps:
            bad.append(
                f"guards.min_steps: must be from 2 to guards.window_steps ({self.window_steps}), got {self.min_steps}"
            )
        bad += [
            f"guards.{name}: must be at least 0, got {getattr(self, name)}"
            for name in ("max_skips", "max_rewinds")
            if getattr(self, name) < 0
        ]
        return bad
