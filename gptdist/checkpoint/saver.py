"""Save checkpoints of a run: copied at once, written in the background, at most one at a time."""

import logging
import secrets
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from gptdist.checkpoint.after_commit import Keeper
from gptdist.checkpoint.fragments import OptimizerFragments
from gptdist.checkpoint.host_buffers import HostBuffers, default_budget
from gptdist.checkpoint.identity import RunIdentity
from gptdist.checkpoint.manifest import Progress
from gptdist.checkpoint.rank_part import RankPart
from gptdist.checkpoint.save import UnfinishedCheckpoint
from gptdist.checkpoint.seals import Protection
from gptdist.config.run import RunConfig
from gptdist.device.host_memory import available_bytes
from gptdist.errors import CheckpointError, GptDistError, TrainingError
from gptdist.mesh.groups import Mesh, broadcast_text, gather_texts, max_over_ranks
from gptdist.telemetry.ledger import SAVED, Ledger

logger = logging.getLogger(__name__)

CRASH_WAIT_SECONDS = 30.0
"""How long a rank that ends with an error goes on writing the checkpoint that was under way."""

_WRITTEN, _DISK_FAILED, _BROKEN = range(3)
"""What became of a rank's share in a save; the worst one counts."""


class _Flight:
    """One save under way on this rank, in a thread of its own."""

    def __init__(self, target: UnfinishedCheckpoint, facts: dict[str, Any], begin: float) -> None:
        self.target = target
        self.facts = facts
        self.begin = begin
        self.stall_seconds = 0.0
        self.write_seconds = 0.0
        self.num_bytes = 0
        self.error: Exception | None = None
        self.has_written = threading.Event()
        """This rank's file is on the disk, or never will be."""

        self.is_over = threading.Event()
        self.given_up = threading.Event()
        """Another rank has failed: rank 0 need not wait for its record."""

    @property
    def outcome(self) -> int:
        if self.error is None:
            return _WRITTEN
        return _DISK_FAILED if isinstance(self.error, OSError) else _BROKEN


class Saver:
    """Saves the checkpoints of a run.

    Whatever all ranks have to agree on is done by the thread that trains; the threads that write know files only.
    """

    def __init__(
        self,
        config: RunConfig,
        fragments: OptimizerFragments,
        identity: RunIdentity,
        mesh: Mesh,
        *,
        ledger: Ledger | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        """Save what ``fragments`` hold, into the run's folder.

        Args:
            config: of the run.
            fragments: master weights and moments of this rank.
            identity: for the manifest.
            mesh: of the run.
            ledger: rank 0's, if it has one.
            keeper: likewise; looks after the folder each time that a checkpoint has got its name.
        """
        self._config, self._fragments, self._identity, self._mesh = config, fragments, identity, mesh
        self._ledger, self._keeper = ledger, keeper
        self._protection = Protection.of(config.checkpoints.protection)
        self._flight: _Flight | None = None
        self._buffers: HostBuffers | None = None
        self._is_asynchronous: bool | None = None
        self._attempt: str | None = None
        self._failed_in_a_row = 0
        self._failure = ""
        self._write_seconds = 0.0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After an error, give the save under way some time; other ranks may be gone, so nothing is agreed on."""
        if self._flight is not None and kind is not None and issubclass(kind, Exception):
            self._flight.is_over.wait(CRASH_WAIT_SECONDS)

    def save(self, progress: Progress, **facts: Any) -> None:
        """Save the run as it is now, and return while it is being written. Collective: every rank calls it.

        Waits for the save before. What does not fit the budget is written before this returns.

        Args:
            progress: how far the run is.
            facts: for the line in the ledger.

        Raises:
            CheckpointError: too many saves have failed in a row, on every rank.
            Exception: what the thread that wrote has raised, unless it was the disk's fault.
        """
        self.settle()
        begin = time.perf_counter()
        if self._attempt is None:
            self._attempt = broadcast_text(secrets.token_hex(4))
            assert self._attempt is not None, "rank 0 has one"
        target = UnfinishedCheckpoint(self._config.checkpoints_folder, progress, self._attempt, self._protection)
        flight = _Flight(target, facts, begin)
        part = RankPart.of(self._fragments, self._mesh)
        asynchronous = self._may_be_asynchronous(part)
        if self._mesh.is_lead:
            try:
                flight.target.begin()
            except (OSError, TrainingError) as error:
                flight.error = error
        worst = max_over_ranks(flight.outcome)
        if worst:
            self._report(flight, worst)
            return
        copied = None
        if asynchronous:
            assert self._buffers is not None, "allocated when that was decided"
            copied = self._buffers.copy(part.values(), stay=self._fragments.stay_in_memory)
        self._flight = flight
        threading.Thread(target=self._write, args=(flight, part, copied), name="checkpoint", daemon=True).start()
        flight.stall_seconds = time.perf_counter() - begin
        if not asynchronous:
            self.settle()

    def standing(self) -> tuple[float, float]:
        """Return how many saves this rank still writes, and how many are over; to be summed over all ranks."""
        flight = self._flight
        if flight is None:
            return 0.0, 0.0
        has_written = flight.has_written.is_set()
        return float(not has_written), float(has_written and (flight.error is not None or self._has_committed(flight)))

    def hear(self, standing: Sequence[float]) -> None:
        """Act on the sum of all ranks' ``standing``: report a save that is over. Collective: every rank calls it.

        Communication: nothing while a rank still writes, then two numbers.

        Raises:
            CheckpointError: too many saves have failed in a row, on every rank.
            Exception: what the thread that wrote has raised, unless it was the disk's fault.
        """
        still_writing, over = standing
        if over and not still_writing:
            self.settle()

    def settle(self) -> None:
        """Wait until nothing is being written, and report. Collective: every rank calls it.

        Raises:
            CheckpointError: too many saves have failed in a row, on every rank.
            Exception: what the thread that wrote has raised, unless it was the disk's fault.
        """
        flight = self._flight
        if flight is None:
            return
        begin = time.perf_counter()
        flight.has_written.wait()
        if max_over_ranks(flight.outcome):
            flight.given_up.set()
        flight.is_over.wait()
        worst = max_over_ranks(flight.outcome)
        self._flight = None
        flight.stall_seconds += time.perf_counter() - begin
        if worst == _WRITTEN:
            self._failed_in_a_row, self._failure = 0, ""
            self._tell(flight)
            return
        if self._mesh.is_lead:
            flight.target.discard()
        self._report(flight, worst)

    def finish(self) -> None:
        """Wait for the last checkpoint of the run. Collective: every rank calls it.

        Raises:
            CheckpointError: it could not be written, on every rank.
            Exception: what the thread that wrote has raised, unless it was the disk's fault.
        """
        self.settle()
        if self._failure:
            raise CheckpointError(
                f"{self._failure}; it was to be the last one of this run, free space or mend the disk, and the same "
                f"command goes on"
            )

    def take_write_seconds(self) -> float:
        """Return how long writing has taken since the last call, on rank 0 and behind the training's back."""
        seconds, self._write_seconds = self._write_seconds, 0.0
        return seconds

    def _has_committed(self, flight: _Flight) -> bool:
        return self._mesh.is_lead and flight.is_over.is_set()

    def _may_be_asynchronous(self, part: RankPart) -> bool:
        """Return whether all ranks have room for a copy, which is asked once. Collective: every rank calls it."""
        if self._is_asynchronous is None:
            problem = self._allocate(part) if self._config.checkpoints.asynchronous else ""
            if problem:
                logger.warning(
                    "checkpoints.host_buffer_bytes: %s; training waits while a checkpoint is written", problem
                )
            stays = problem or not self._config.checkpoints.asynchronous
            self._is_asynchronous = not max_over_ranks(int(bool(stays)))
            if not self._is_asynchronous and self._buffers is not None:
                self._buffers.release()
                self._buffers = None
        return self._is_asynchronous

    def _allocate(self, part: RankPart) -> str:
        """Make room for a copy of ``part``; return why there is none."""
        stated = self._config.checkpoints.host_buffer_bytes
        budget, whose = stated, "stated"
        if budget is None:
            budget = default_budget(available_bytes(), self._config.launch.ranks_per_node)
            whose = "its share of the memory that is free"
        if part.num_bytes > budget:
            return f"a copy of what rank {self._mesh.rank} saves takes {part.num_bytes} bytes, {budget} are {whose}"
        try:
            self._buffers = HostBuffers(part.sizes, part.device)
        except RuntimeError as error:  # so says torch where memory is short
            return f"{part.num_bytes} bytes cannot be allocated on rank {self._mesh.rank} ({error})"
        return ""

    def _write(self, flight: _Flight, part: RankPart, copied: dict[str, Tensor] | None) -> None:
        begin, target, layout = time.perf_counter(), flight.target, self._mesh.layout
        try:
            target.write(part, copied, self._mesh.rank)
            flight.has_written.set()
            # Half: the other ranks, who wait in a collective, are to hear of it.
            patience = self._config.training.collective_timeout_seconds / 2
            if self._mesh.is_lead and target.wait_for_records(layout.world_size, patience, flight.given_up):
                flight.num_bytes = target.commit(self._identity, layout)
                if self._keeper is not None:
                    self._keeper.after_commit(target.final)
        except Exception as error:  # a thread's outermost frame: the trainer raises it
            flight.error = error
        finally:
            flight.write_seconds = time.perf_counter() - begin
            flight.has_written.set()
            flight.is_over.set()

    def _gather(self, error: Exception | None) -> str:
        """Return what went wrong on which rank. Collective: every rank calls it."""
        text = "" if error is None else str(error) if isinstance(error, OSError | GptDistError) else repr(error)
        return "; ".join(f"rank {rank}: {reason}" for rank, reason in enumerate(gather_texts(text)) if reason)

    def _report(self, flight: _Flight, worst: int) -> None:
        """Report a save that came to nothing; ``worst`` is over all ranks. Collective: every rank calls it."""
        reasons = self._gather(flight.error)
        if worst == _BROKEN:
            broken = CheckpointError(f"{flight.target.final}: not written ({reasons}); older checkpoints are untouched")
            raise broken if flight.error is None else flight.error
        self._fail(flight, reasons)

    def _fail(self, flight: _Flight, reasons: str) -> None:
        """Report a save that the disk refused; the same on every rank."""
        self._failed_in_a_row += 1
        step, most = flight.target.progress.step, self._config.checkpoints.max_failed_saves
        self._failure = f"{flight.target.final}: not written ({reasons}), older checkpoints are untouched"
        if self._mesh.is_lead:
            logger.warning("step %d | %s; training goes on, the next save tries again", step, self._failure)
        if self._ledger is not None:
            self._ledger.write("checkpoint_failed", step=step, reason=reasons, in_a_row=self._failed_in_a_row)
        if self._failed_in_a_row >= most:
            raise CheckpointError(
                f"{self._failure}; {self._failed_in_a_row} saves in a row have failed, checkpoints.max_failed_saves is "
                f"{most}; free space or mend the disk, and the same command goes on"
            )

    def _tell(self, flight: _Flight) -> None:
        """Report a checkpoint that has got its name."""
        self._write_seconds += flight.write_seconds
        if not self._mesh.is_lead:
            return
        speed, asynchronous = flight.num_bytes / flight.write_seconds, bool(self._is_asynchronous)
        if self._ledger is not None:
            self._ledger.write(
                SAVED,
                step=flight.target.progress.step,
                bytes=flight.num_bytes,
                stall_seconds=flight.stall_seconds,
                write_seconds=flight.write_seconds,
                bytes_per_second=speed,
                asynchronous=asynchronous,
                **flight.facts,
            )
        logger.info(
            "step %d | saved %s: %s bytes, training waited %.3f s, written in %.2f s (%.1f MB/s)",
            flight.target.progress.step,
            flight.target.final,
            f"{flight.num_bytes:,}",
            flight.stall_seconds,
            flight.write_seconds,
            speed / 1e6,
        )
