"""Compare a replay with what a run recorded, and say PASS or FAIL with the numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from gptdist.checkpoint.proof import StepRecord
from launch.resume_plan import Plan

STEP_TOLERANCE = {"fp32": 1e-4, "16 bit": 3e-2}
"""Of losses and gradient norms on another layout, where sums are taken in another order: a fraction of the number
recorded, or of 1 if that is less."""

MOVED_TOLERANCE = {"fp32": 0.02, "16 bit": 0.5}
"""Likewise of weights and moments: how far all of a kind are from those saved, as a fraction of how far the replayed
steps have moved them. Adam moves a weight without a gradient by rounding alone, so that no bound on one value holds."""

_SHOWN_STEPS = 20


@dataclass
class Findings:
    """What a replay has shown so far."""

    plan: Plan
    step_tolerance: float
    moved_tolerance: float
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan, tolerance: float | None) -> Self:
        """Return the findings of a replay that is to come."""
        training = plan.config.training
        is_fp32 = training.precision == "fp32" or (training.precision == "auto" and training.device == "cpu")
        kind = "fp32" if is_fp32 else "16 bit"
        allowed = 0.0 if plan.is_same_layout else STEP_TOLERANCE[kind]
        is_exact = plan.is_same_layout and not tolerance
        return cls(plan, allowed if tolerance is None else tolerance, 0.0 if is_exact else MOVED_TOLERANCE[kind])

    def fail(self, problem: str) -> None:
        """Note one reason why the replay is not the run."""
        self.problems.append(problem)

    def heading(self) -> str:
        """Return what is replayed, in one line."""
        plan = self.plan
        ranks = plan.config.launch.ranks_per_node
        layout = "the layout that saved" if plan.is_same_layout else "another layout than that of"
        return (
            f"replaying steps {plan.first.step + 1} to {plan.until} from {plan.before} on {ranks} "
            f"rank{'s' if ranks > 1 else ''}, {layout} {plan.saved.name}"
        )

    def take(self, report: dict[str, Any]) -> None:
        """Compare what a replay reports, see ``gptdist.train.replay``."""
        self._compare_steps([StepRecord.from_tree(tree) for tree in report["steps"]])
        if report["tensors"] is not None:
            self._compare_tensors(report["tensors"])

    def _compare_steps(self, replayed: Sequence[StepRecord]) -> None:
        """Compare loss and gradient norm of each step with those recorded."""
        rows, worst, compared = [], 0.0, 0
        for now in replayed:
            was = self.plan.recorded.get(now.step)
            if was is None:
                rows.append(f"{now.step:>8}  {'not recorded':>20} {_text(now.loss):>20}")
                continue
            compared += 1
            parts, apart = [f"{now.step:>8} "], 0.0
            for name in ("loss", "grad_norm"):
                one = _apart(getattr(was, name), getattr(now, name))
                apart = max(apart, one)
                parts.append(f"{_text(getattr(was, name)):>20} {_text(getattr(now, name)):>20} {one:>8.1e} ")
                if one > self.step_tolerance:
                    self.fail(
                        f"step {now.step}: {name} was {_text(getattr(was, name))} and is {_text(getattr(now, name))} "
                        f"in the replay, {one:.2e} apart, {self.step_tolerance:g} is allowed"
                    )
            if was.skipped != now.skipped:
                self.fail(f"step {now.step}: was {_taken(was)} and is {_taken(now)} in the replay")
            worst = max(worst, apart)
            rows.append("".join(parts).rstrip())
        head = f"{'step':>8}  {'loss was':>20} {'is':>20} {'apart':>8} {'grad_norm was':>20} {'is':>20} {'apart':>8}"
        hidden = len(rows) - _SHOWN_STEPS
        if hidden > 0:
            rows[_SHOWN_STEPS // 2 : -_SHOWN_STEPS // 2] = [f"{'…':>8}  {hidden} steps more"]
        self.lines += [head, *rows, f"{compared} of {len(replayed)} steps compared, at most {worst:.2e} apart"]

    def _compare_tensors(self, tensors: Sequence[dict[str, Any]]) -> None:
        """Compare weights and moments with the saved ones."""
        different = [one for one in tensors if one["values"]]
        largest = max((one["largest"] for one in tensors), default=0.0)
        if not different:
            self.lines.append(f"weights and moments: {len(tensors)} tensors equal bit for bit")
            return
        self.lines.append(
            f"weights and moments: {len(different)} of {len(tensors)} tensors differ, by {largest:.2e} at most"
        )
        for state in dict.fromkeys(one["state"] for one in tensors):
            mine = [one for one in tensors if one["state"] == state]
            apart, moved = (math.sqrt(sum(one[key] for one in mine)) for key in ("squares", "moved_squares"))
            fraction = apart / moved if moved else math.inf if apart else 0.0
            self.lines.append(f"  {state}: {fraction:.2e} of the way that it has moved from {self.plan.before.name}")
            if fraction > self.moved_tolerance:
                named = max(mine, key=lambda one: float(one["squares"]))
                if not self.moved_tolerance:
                    named = next(one for one in mine if one["values"])
                self.fail(
                    f"{state} of '{named['tensor']}' differs {'most' if self.moved_tolerance else 'first'} from "
                    f"{self.plan.saved.name}, in {named['values']} values by {named['largest']:.2e} at most; in all "
                    f"{fraction:.2e} of the way that it has moved, {self.moved_tolerance:g} is allowed"
                )

    def verdict(self) -> str:
        """Return the last line."""
        plan = self.plan
        steps = f"steps {plan.first.step + 1} to {plan.until}"
        if self.problems:
            return f"FAIL  {self.problems[0]}"
        how = "bit for bit" if not self.step_tolerance else f"within {self.step_tolerance:g}"
        led = f", and lead to {plan.saved.name}" if plan.is_whole else ""
        return f"PASS  {steps} come out {how}{led}"


def _apart(was: float | None, now: float | None) -> float:
    """Return the difference of two numbers as a fraction of the first, or of 1 if that is less."""
    if was is None or now is None:
        return 0.0 if was == now else math.inf
    return abs(now - was) / max(1.0, abs(was))


def _text(number: float | None) -> str:
    return "not finite" if number is None else repr(number)


def _taken(record: StepRecord) -> str:
    return "skipped" if record.skipped else "taken"
