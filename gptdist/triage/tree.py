"""What a triage has found as plain data for JSON."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gptdist.triage.triage import Triage


def tree(found: Triage) -> dict[str, Any]:
    """Return everything, all samples and whole texts; a number that is not finite is null."""
    plain: dict[str, Any] = _plain(asdict(found))
    for shown, one in zip(plain["batch"]["samples"], found.batch.samples, strict=True):
        shown |= {"suspicion": one.oddness.suspicion, "reason": one.oddness.reason, **shown.pop("oddness")}
    plain["problems"] = list(found.problems)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
