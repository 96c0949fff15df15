"""An optimizer step that can be refused once the gradient's norm is known.

DeepSpeed computes the norm, clips, and calls its inner torch optimizer in one method. Refusing there leaves master
weights, moments and their step count alone; the rest of DeepSpeed's step copies the same weights again, and clears the
gradients as after any step.
"""

from collections.abc import Callable
from typing import Any

import torch

Verdict = Callable[[], bool]
"""Says whether the update that is about to happen may happen; asked once a step, on every rank."""


class UpdateGate:
    """Stands before ``optimizer.step``."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Let no call of ``optimizer.step`` through that nobody has allowed."""
        self._step = optimizer.step
        self._ask: Verdict | None = None
        self._verdict: bool | None = None
        optimizer.step = self._gated  # type: ignore[method-assign]

    def guard(self, update: Callable[[], None], may_update: Verdict) -> None:
        """Run ``update``, in which the optimizer is stepped once a group, if ``may_update`` says so.

        Args:
            update: does not come to the optimizer where DeepSpeed found the gradient not finite.
            may_update: asked once in any case, before the optimizer is stepped; decides on all groups.
        """
        self._ask, self._verdict = may_update, None
        update()
        self._allowed()
        self._ask = None

    def _allowed(self) -> bool:
        assert self._ask is not None, "an optimizer step outside of Engine.update"
        if self._verdict is None:
            self._verdict = self._ask()
        return self._verdict

    def _gated(self, *arguments: Any, **options: Any) -> Any:
        return self._step(*arguments, **options) if self._allowed() else None
