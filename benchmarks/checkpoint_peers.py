"""What users save and load with instead, on the state of the very same engine.

``python -m benchmarks.checkpoint_peers FROM TO`` is DeepSpeed's conversion to a universal checkpoint.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

TAG = "saved"
UNIVERSAL_TAG = "universal"


class DeepSpeedFiles:
    """``engine.save_checkpoint`` and ``engine.load_checkpoint``."""

    def __init__(self, run: Any) -> None:
        """Of the engine of ``run``."""
        self._run = run
        self._engine = run.engine.deepspeed
        state_of = self._engine.module_state_dict

        def without_none(*arguments: Any, **options: Any) -> Any:
            # megatron-core's layers have a state that is None, on which the conversion to universal fails.
            return {name: values for name, values in state_of(*arguments, **options).items() if values is not None}

        self._engine.module_state_dict = without_none

    def save(self, folder: str) -> dict[str, Any]:
        """Save as DeepSpeed does, which leaves the bytes in the page cache; what fsync takes then is told apart."""
        import torch.distributed as dist

        vocabulary = self._run.config.model.vocab_size
        facts = {"universal_checkpoint_version": 0.2} | dict.fromkeys(
            ("original_vocab_size", "padded_vocab_size"), vocabulary
        )
        self._engine.save_checkpoint(folder, tag=TAG, client_state={"universal_checkpoint_info": facts})
        begin = time.perf_counter()
        if dist.get_rank() == 0:
            sync_files(Path(folder))
        dist.barrier()
        return {"fsync": time.perf_counter() - begin, "folder": folder}

    def load(self, folder: str, tag: str = TAG) -> dict[str, Any]:
        """Load what ``save`` wrote in this layout, or what was made universal."""
        self._engine._config.load_universal_checkpoint = tag == UNIVERSAL_TAG
        path, _ = self._engine.load_checkpoint(folder, tag=tag, load_module_strict=False)
        assert path is not None, f"{folder}: nothing loaded"
        return {}


class TorchDistributedFiles:
    """``torch.distributed.checkpoint``: what each rank's optimizer holds, as shards of flat tensors."""

    def __init__(self, run: Any) -> None:
        """Of the optimizer of ``run``; ZeRO's flat groups, as one finds them under FSDP too."""
        import torch.distributed as dist

        self._run = run
        self._group: Any = dist.new_group(backend="gloo")
        self._mesh: Any = None

    def save(self, folder: str) -> dict[str, Any]:
        """Save, and return once the files are on the disk."""
        import torch.distributed.checkpoint as dcp

        dcp.save(self._state(), checkpoint_id=folder)
        return {"folder": folder}

    def save_async(self, folder: str) -> dict[str, Any]:
        """Save in the background; the stall is the time until ``async_save`` has returned."""
        import torch.distributed.checkpoint as dcp

        begin = time.perf_counter()
        # torch 2.13's own stager cannot copy a DTensor that is on a CPU.
        future = dcp.async_save(self._state(), checkpoint_id=folder, process_group=self._group, async_stager=_Cloning())
        stall = time.perf_counter() - begin
        future.result()
        return {"stall": stall, "folder": folder}

    def load(self, folder: str) -> dict[str, Any]:
        """Load into what the optimizer holds, which may be cut for another number of ranks."""
        import torch.distributed.checkpoint as dcp

        dcp.load(self._state(), checkpoint_id=folder)
        self._run.fragments.weights_follow()
        return {}

    def _state(self) -> dict[str, Any]:
        import torch.distributed as dist
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import DTensor, Shard

        if self._mesh is None:
            self._mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        fragments = self._run.fragments
        state: dict[str, Any] = {}
        for index, flat in enumerate(fragments.pieces()):
            held = fragments.torch_optimizer.state[flat]
            for name, values in (("weight", flat.data), *((name, held[name]) for name in ("exp_avg", "exp_avg_sq"))):
                state[f"{index}.{name}"] = DTensor.from_local(values, self._mesh, [Shard(0)], run_check=False)
        return state


class _Cloning:
    """Copies a state before ``async_save`` returns."""

    _synchronize_after_execute = False
    should_synchronize_after_execute = False

    def __init__(self) -> None:
        self._copies: dict[str, Any] = {}

    def stage(self, state: dict[str, Any]) -> dict[str, Any]:
        from torch.distributed.tensor import DTensor

        return {
            name: DTensor.from_local(one.to_local().clone(), one.device_mesh, one.placements, run_check=False)
            for name, one in state.items()
        }

    def synchronize_staging(self) -> None:
        """Nothing is left to wait for."""

    def close(self) -> None:
        """Nothing is kept."""


def sync_files(folder: Path) -> None:
    """Bring every file in ``folder`` to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def _convert(source: str, target: str) -> float:
    """Make DeepSpeed's checkpoint ``source`` universal; return the seconds, without the start of Python."""
    from gptdist.device.device import prepare_deepspeed

    prepare_deepspeed()
    from deepspeed.checkpoint import ds_to_universal

    sys.argv[1:] = ["--input_folder", source, "--output_folder", target, "--num_extract_workers", "2", "--no_strict"]
    arguments = ds_to_universal.parse_arguments()
    begin = time.perf_counter()
    ds_to_universal.main(arguments)
    return time.perf_counter() - begin


if __name__ == "__main__":
    print(json.dumps({"seconds": _convert(sys.argv[1], sys.argv[2])}))
