"""What a checkpoint carries so that a resume can be proven to be the same run; no torch."""

import hashlib
import json

from gptdist.config.section import Section

KEPT_STEPS = 32
"""Last steps whose loss and gradient norm a checkpoint keeps."""

KEPT_FIRST_STEPS = 4
"""Likewise the first ones behind the checkpoint before: a replay of few steps finds them."""


class SourcePosition(Section):
    """How far a run has read one of its sources."""

    name: str
    taken: int
    """Samples of it among those consumed."""

    epoch: int
    window: int
    """Its next sample: which window of ``seq_length`` tokens, after how many readings of all of them."""

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.taken} samples of '{self.name}', the next one window {self.window} in epoch {self.epoch}"


class SampleOrigin(Section):
    """Where one sample comes from."""

    sample: int
    source: str
    epoch: int
    window: int

    def __str__(self) -> str:
        """Return it in words."""
        return f"window {self.window} of '{self.source}' in epoch {self.epoch}"


class NextBatch(Section):
    """What the step after a checkpoint reads."""

    first_sample: int
    samples: int
    origins: tuple[SampleOrigin, ...]
    """Of its first samples."""

    tokens_sha256: str
    """Of the whole batch: each sample's seq_length + 1 tokens as 32-bit little-endian numbers, one behind the other."""


class StepRecord(Section):
    """One step that was done, as JSON can hold it bit for bit; a number that is not finite is none."""

    step: int
    loss: float | None
    """Nats a token."""

    grad_norm: float | None
    skipped: bool = False
    """Whether the guards refused it."""


class ResumeProof(Section):
    """What a resumed run must find again."""

    attempt: int
    """Which attempt of the run saved the checkpoint."""

    sources: tuple[SourcePosition, ...]
    next_batch: NextBatch
    steps: tuple[StepRecord, ...]
    """The first ones behind the checkpoint before and the last ones, oldest first."""


def kept_steps(steps: list[StepRecord], saved_step: int) -> list[StepRecord]:
    """Return those of ``steps`` that the next checkpoint keeps, when the one before is of ``saved_step``."""
    last = steps[-1].step - KEPT_STEPS
    return [one for one in steps if one.step > last or saved_step < one.step <= saved_step + KEPT_FIRST_STEPS]


def order_digest(sources: tuple[SourcePosition, ...]) -> str:
    """Return what the positions in all sources are known by; equal if no window was or will be read twice or never."""
    read = sorted((one.name, one.taken, one.epoch, one.window) for one in sources if one.taken)
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()[:16]


def ledger_facts(proof: ResumeProof | None) -> dict[str, int | str]:
    """Return what the ledger notes of a checkpoint, for ``gptdist audit``; nothing if it is not proven."""
    if proof is None:
        return {}
    return {"consumed_samples": proof.next_batch.first_sample, "order": order_digest(proof.sources)}
