"""A rank of ``benchmarks.checkpoint``: ``python -m benchmarks.checkpoint_rank CONFIG_JSON``.

Trains one step, so that no moment is zero, and then does what the lines on standard input ask, such as
``{"do": "save", "folder": …}``. Each answer has the seconds from a barrier until this rank was done.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.checkpoint_peers import DeepSpeedFiles, TorchDistributedFiles
from benchmarks.contenders import serve
from benchmarks.rank import begin_rank, forget_highest, give_back_freed_memory, resident_bytes

BLOCK_BYTES = 1 << 22
"""Of a plain read."""


def main(settings: dict[str, Any]) -> None:
    """Build the run and answer until standard input is closed."""
    begin_rank()
    from gptdist.config.run import RunConfig
    from gptdist.train.build import build, join
    from gptdist.train.loop import train_step
    from gptdist.train.stop_signal import StopSignal

    config = RunConfig.from_tree(settings["config"])
    mesh, device = join(config, local_rank=int(os.environ["LOCAL_RANK"]))
    if settings["gives_back"]:
        give_back_freed_memory()
    run = build(config, mesh, device, StopSignal())
    run.state.advance(train_step(run))
    serve(Operations(run).answer)


class Operations:
    """What can be asked of a run."""

    def __init__(self, run: Any) -> None:
        """Save and load the state of ``run``."""
        from gptdist.checkpoint.saver import Saver

        self._run = run
        self._step = 0
        self._target: bytearray | None = None
        checkpoints = run.config.checkpoints.model_copy(update={"asynchronous": False})
        config = run.config.model_copy(update={"checkpoints": checkpoints})
        self._waits = Saver(config, run.fragments, run.identity, run.mesh)
        self._goes_on = Saver(run.config, run.fragments, run.identity, run.mesh)
        self._deepspeed = DeepSpeedFiles(run)
        self._torch = TorchDistributedFiles(run)
        self._operations: dict[str, Callable[..., dict[str, Any]]] = {
            "facts": self._facts,
            "save": self._save,
            "save_async": self._save_async,
            "load": self._load,
            "resume": self._resume,
            "read": self._read,
            "deepspeed_save": self._deepspeed.save,
            "deepspeed_load": self._deepspeed.load,
            "dcp_save": self._torch.save,
            "dcp_save_async": self._torch.save_async,
            "dcp_load": self._torch.load,
        }

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Do it; with ``memory`` the answer says what was resident at most, beyond what was before."""
        what = question.pop("do")
        wants_memory = question.pop("memory", False)
        is_load = what.endswith(("load", "resume"))
        if is_load:
            self._wipe()
        dist.barrier()
        before = forget_highest() if wants_memory else 0
        begin = time.perf_counter()
        found = self._operations[what](**question)
        seconds = time.perf_counter() - begin
        if wants_memory:
            found["extra_bytes"] = resident_bytes("VmHWM") - before
        if is_load:
            found["checksum"] = self._checksum()
        return {"seconds": seconds, **found}

    def _facts(self) -> dict[str, Any]:
        from gptdist.model.arithmetic import num_parameters

        largest = max(local.logical.outer * local.logical.length * local.logical.inner for local in self._locals())
        return {
            "parameters": num_parameters(self._run.config.model),
            "largest_bytes": 4 * largest,
            "buffer_bytes": self._part().num_bytes,
            "checksum": self._checksum(),
        }

    def _save(self) -> dict[str, Any]:
        return self._saved_by(self._waits)

    def _save_async(self) -> dict[str, Any]:
        return self._saved_by(self._goes_on)

    def _saved_by(self, saver: Any) -> dict[str, Any]:
        """Save; the stall is the time until ``save`` has returned, and what is left to do once all is written."""
        progress = self._progress()
        begin = time.perf_counter()
        saver.save(progress)
        stall = time.perf_counter() - begin
        flight = saver._flight
        if flight is not None:
            flight.is_over.wait()
            begin = time.perf_counter()
            saver.settle()
            stall += time.perf_counter() - begin
        return {"stall": stall, "folder": str(self._run.config.checkpoints_folder / f"step_{progress.step:08d}")}

    def _progress(self) -> Any:
        from gptdist.checkpoint.manifest import Progress

        self._step += 1
        return Progress(
            step=self._step,
            consumed_samples=self._run.state.consumed_samples,
            consumed_tokens=0,
            optimizer_step=self._run.fragments.optimizer_step(),
            loss=self._run.state.loss,
        )

    def _load(self, folder: str) -> dict[str, Any]:
        """Load what is known to be whole."""
        from gptdist.checkpoint.load import load_run
        from gptdist.checkpoint.read import CheckpointReader

        load_run(CheckpointReader(Path(folder)), self._run.fragments, self._run.mesh)
        return {}

    def _resume(self, folder: str) -> dict[str, Any]:
        """Load as a resume does: rank 0 compares every file's hash first."""
        from gptdist.checkpoint.verify import verify
        from gptdist.train.restore import load_agreed

        def choose() -> str:
            problems = verify(Path(folder))
            assert not problems, problems
            return folder

        load_agreed(choose, self._run.fragments, self._run.mesh)
        return {}

    def _read(self, folder: str) -> dict[str, Any]:
        """Read this rank's share of all bytes of tensors into memory that is there already."""
        files = sorted(Path(folder).glob("*.safetensors"))
        sizes = [file.stat().st_size for file in files]
        rank, world = dist.get_rank(), dist.get_world_size()
        first, behind = sum(sizes) * rank // world, sum(sizes) * (rank + 1) // world
        if self._target is None:
            self._target = bytearray(behind - first)
        target, begin = memoryview(self._target), 0
        for file, size in zip(files, sizes, strict=True):
            with file.open("rb", buffering=0) as stream:
                stream.seek(max(0, first - begin))
                left = min(size, behind - begin) - max(0, first - begin)
                while left > 0:
                    count = stream.readinto(target[: min(left, BLOCK_BYTES)]) or 0
                    left, target = left - count, target[count:]
            begin += size
        return {}

    def _locals(self) -> Any:
        return self._run.fragments.locals

    def _part(self) -> Any:
        from gptdist.checkpoint.rank_part import RankPart

        return RankPart.of(self._run.fragments, self._run.mesh)

    def _wipe(self) -> None:
        """Make sure that what is found later has been loaded."""
        for fragment in self._run.fragments.all(writes=True):
            for values in fragment.states.values():
                values.zero_()

    def _checksum(self) -> list[float]:
        """Return the sum of the magnitudes of all values, weights and moments, over all ranks. Collective."""
        sums: dict[str, float] = {"weight": 0.0, "exp_avg": 0.0, "exp_avg_sq": 0.0}
        for key, values in self._part().values():
            sums[key.partition("/")[0]] += float(values.abs().sum(dtype=torch.float64))
        total = torch.tensor(list(sums.values()), dtype=torch.float64)
        dist.all_reduce(total)
        return [float(value) for value in total]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
