"""Decide which checkpoints stay; nothing is touched here."""

from collections.abc import Sequence
from dataclasses import dataclass

from gptdist.config.retention import KeepConfig

SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class Candidate:
    """What the rules ask about one checkpoint."""

    step: int
    is_whole: bool
    saved_at: float = 0.0
    """Seconds since 1970."""

    loss: float | None = None
    """Validation loss of this very step, nats a token; none if there was no validation at it."""

    windows: str | None = None
    """What the windows are known by that the loss was measured on."""

    first_skipped: int | None = None
    """First step that the guards skipped within their window: a rewind goes back to before it."""


@dataclass(frozen=True)
class Stay:
    """Why a checkpoint stays."""

    rules: tuple[str, ...]
    if_whole: bool
    """Whether one of the rules counts whole checkpoints only: a damaged one would leave its place to another."""

    def __str__(self) -> str:
        """Return the reasons in words."""
        return ", ".join(self.rules)


def staying(rules: KeepConfig, found: Sequence[Candidate], *, now: float) -> dict[int, Stay]:
    """Return the steps whose checkpoints stay, each with the reason; the others may go.

    A damaged checkpoint takes no place among the last or the best. The newest whole one stays under any rules, and so
    do damaged ones that are newer, which may yet be mended, and the one that a rewind would go back to. Where the best
    stay, so does the newest that has a loss.

    Args:
        rules: of the config.
        found: all checkpoints of a run, in any order.
        now: seconds since 1970.
    """
    whole = sorted((one for one in found if one.is_whole), key=lambda one: -one.step)
    if rules.keeps_everything or not whole:
        reason = "no rule is set" if rules.keeps_everything else "none is whole"
        return {one.step: Stay((reason,), if_whole=False) for one in found}
    newest = whole[0]
    counted = {"newest whole": [newest], "for a rewind": _for_rewind(whole)}
    if rules.last is not None:
        counted[f"last {rules.last}"] = whole[: rules.last]
    if rules.best is not None:
        # Without the newest with a loss, an older one on other windows would say next time which losses count.
        counted["newest with a loss"] = [one for one in whole if one.loss is not None][:1]
        counted[f"best {rules.best}"] = _best(whole, rules.best)
    others = {"newer, may be mended": [one for one in found if one.step > newest.step]}
    if rules.every_steps is not None:
        others[f"every {rules.every_steps}"] = [one for one in found if one.step % rules.every_steps == 0]
    if rules.for_hours is not None:
        since = now - rules.for_hours * SECONDS_AN_HOUR
        others[f"for {rules.for_hours:g} hours"] = [one for one in found if one.saved_at > since]
    stays: dict[int, Stay] = {}
    for group, if_whole in ((counted, True), (others, False)):
        for reason, held in group.items():
            for one in held:
                before = stays.get(one.step, Stay((), if_whole=False))
                stays[one.step] = Stay((*before.rules, reason), before.if_whole or if_whole)
    return stays


def _for_rewind(whole: Sequence[Candidate]) -> list[Candidate]:
    """Return the newest from before the trouble that the newest remembers; it could go on, and lead back there."""
    first = whole[0].first_skipped
    return [] if first is None else [one for one in whole if one.step < first][:1]


def _best(whole: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return those of lowest loss, the older of equals; losses on other windows than the newest cannot be compared."""
    measured = [(one.loss, one) for one in whole if one.loss is not None]
    if not measured:
        return []
    windows = measured[0][1].windows
    comparable = [(loss, one.step, one) for loss, one in measured if one.windows == windows]
    return [one for _, _, one in sorted(comparable, key=lambda entry: entry[:2])][:count]
