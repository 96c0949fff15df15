"""Optimizer state and weights in files on a disk: bit for bit the run that has them in the machine's memory."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.test_skip import bits, skipped_and_never_met
from tests.support.jobs import open_run, step_until, train_steps
from tests.support.layouts import ONE_RANK, TestedLayout
from tests.support.ranks import run_ranks
from tests.support.swapping import BUILD_SECONDS, MODEL, need_async_io, swapped_tree

LOSS_TOLERANCE = 2e-6
"""fp32, sums in another order."""

NORM_TOLERANCE = 1e-5
END, SAVE = 4, 2
OPTIMIZER = ("offload_optimizer",)
BOTH = ("offload_optimizer", "offload_parameters")
WAITS = {"asynchronous": False}
"""A checkpoint is written straight from what is swapped in, not from a copy of it all."""

ONE, TWO = TestedLayout(1, 3, 1), TestedLayout(2, 3, 1)

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("swapping")
    need_async_io(made)
    return made


@pytest.fixture(scope="module")
def reference(folder: Path) -> list[Any]:
    """Steps of one rank without ZeRO, which saves too."""
    return run_ranks(1, train_steps, swapped_tree(folder, "reference", ONE_RANK, memory={}), END, SAVE)[0]


def _hashes(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / f"checkpoints/step_{SAVE:08d}/manifest.json").read_text())["files"]


def _memory(folder: Path, what: tuple[str, ...]) -> dict[str, str]:
    return dict.fromkeys(what, "nvme") | {"nvme_path": str(folder / "disk")}


@pytest.mark.parametrize(
    ("layout", "what", "precision", "kind", "checkpoints"),
    [
        (TWO, OPTIMIZER, "bf16", "lion", WAITS),
        (TWO, BOTH, "fp32", "adamw", {}),
        (ONE, BOTH, "bf16", "adamw", WAITS),
    ],
    ids=str,
)
def test_equals_memory_bit_for_bit_and_resumes(
    folder: Path, layout: TestedLayout, what: tuple[str, ...], precision: str, kind: str, checkpoints: dict[str, Any]
) -> None:
    name, ranks = f"{'+'.join(what)}-{precision}", layout.world_size
    others = {"training": {"precision": precision}, "checkpoints": checkpoints, "optimizer": {"kind": kind}}
    in_memory = swapped_tree(folder, f"{name}-cpu", layout, memory=dict.fromkeys(what, "cpu"), **others)
    tree = swapped_tree(folder, name, layout, memory=_memory(folder, what), **others)
    expected = run_ranks(ranks, train_steps, in_memory, END, SAVE)[0]
    assert run_ranks(ranks, train_steps, tree, END, SAVE)[0] == expected
    assert _hashes(folder / name) == _hashes(folder / f"{name}-cpu")
    assert run_ranks(ranks, train_steps, tree, END)[0] == expected[SAVE:]


def test_equals_one_rank_and_goes_on_from_its_checkpoint_and_back(folder: Path, reference: list[Any]) -> None:
    layout = TestedLayout(4, 3, 2)
    tree = swapped_tree(folder, "four", layout)
    _compare(run_ranks(4, train_steps, tree, END, SAVE)[0], reference)
    _compare(run_ranks(1, train_steps, swapped_tree(folder, "four", ONE_RANK, memory={}), END)[0], reference[SAVE:])
    weights_only = _memory(folder, ("offload_parameters",))
    tree = swapped_tree(folder, "reference", TWO, memory=weights_only)
    _compare(run_ranks(2, train_steps, tree, END)[0], reference[SAVE:])


def _compare(found: list[Any], reference: list[Any]) -> None:
    assert [loss for _, loss, _ in found] == pytest.approx([loss for _, loss, _ in reference], abs=LOSS_TOLERANCE)
    assert [norm for *_, norm in found] == pytest.approx([norm for *_, norm in reference], rel=NORM_TOLERANCE)


def resident(tree: dict[str, Any]) -> dict[str, Any]:
    """Return what is in memory at what time, and whether a run that goes back in place does the same steps again."""
    from functools import partial

    import torch

    from gptdist.train.drift import _checksum
    from gptdist.train.loop import save
    from gptdist.train.restore import load_agreed
    from gptdist.train.run import TrainState
    from gptdist.train.swap_folder import locked_bytes

    run = open_run(tree)
    optimizer = run.engine.optimizer
    swapped = [
        flat
        for index, flat in enumerate(optimizer.fp32_partitioned_groups_flat)
        if optimizer._swappable_optimizer_subgroup(index)
    ]

    def count() -> int:
        return sum(flat.numel() > 0 for flat in swapped)

    weights = [local.parameter.ds_tensor for local in run.parameters]
    swapper = optimizer.fp16_groups[0][0].nvme_swapper
    buffers = [swapper.buffers, swapper.partitioned_swap_buffer]
    buffers += optimizer.optimizer_swapper.swap_buffer_manager.all_buffers
    groups = [{"params": group} for group in optimizer.fp16_groups]
    found: dict[str, Any] = {"swapped": len(swapped), "built": count()}
    found["unforeseen"] = locked_bytes(run.config, run.mesh, torch.float32, groups, 1 << 60) - sum(
        buffer.nbytes for buffer in buffers
    )
    save(run)  # before any update, where moments are made for it
    run.saver.settle()
    step_until(run, SAVE, save_at=SAVE)
    run.saver.finish()
    found["stepped"] = count()
    found["weights in files"] = sum(held.status.name == "NOT_AVAILABLE" for held in weights)
    masters = {
        fragment.local.logical.name: int(fragment.states["weight"].view(torch.int32).sum(dtype=torch.int64))
        for fragment in run.fragments.all()
    }
    found["weights_follow"] = masters == {
        local.logical.name: int(_checksum(local.parameter)) for local in run.parameters if local.logical.name in masters
    }
    before = bits(run)
    steps = step_until(run, END)
    found["moved"] = bits(run) != before
    found["walking"] = max(count() for _ in run.fragments.all())
    newest = sorted(run.config.checkpoints_folder.glob("step_*"))[-1]
    manifest = load_agreed(partial(str, newest), run.fragments, run.mesh)
    found["is_back"] = bits(run) == before
    found["at_last"] = count()
    vars(run.state).update(vars(TrainState.of(manifest.progress)))
    found["does_the_same"] = step_until(run, END) == steps
    return found


def test_little_at_a_time_is_in_memory_and_a_run_goes_back_in_place(folder: Path) -> None:
    for found in run_ranks(2, resident, swapped_tree(folder, "resident", TWO, memory=_memory(folder, BOTH))):
        assert found.pop("swapped") >= 2
        assert found.pop("weights in files") == MODEL["num_layers"], "the first matrix of each MLP"
        assert 0 <= found.pop("unforeseen") < 6 * 4096, "a part of a page each"
        assert found == {
            "built": 0,
            "stepped": 0,
            "weights_follow": True,
            "moved": True,
            "walking": 1,
            "is_back": True,
            "at_last": 0,
            "does_the_same": True,
        }


def test_a_skipped_step_leaves_no_trace(folder: Path) -> None:
    tree = swapped_tree(folder, "skip", ONE, guards={"window_steps": 8, "min_steps": 3})
    found = run_ranks(1, skipped_and_never_met, tree, {4: 1e4, 5: float("nan")})[0]
    assert [is_unchanged for _, is_unchanged in found["refused"]] == [True, True]
    assert found["skipped"] == found["never"], "floats are compared bit for bit"
    assert found["same"]


def save_on_a_full_disk(tree: dict[str, Any]) -> list[tuple[int, float, float]]:
    """Train with a first save whose file is cut short by a full disk."""
    import gc

    from gptdist.checkpoint import save as saving

    gc.disable()  # it might let go what the save's error still holds
    write = saving.write_stream

    def full(path: Path, sizes: Any, tensors: Any, key: Any) -> None:
        next(iter(tensors))
        saving.write_stream = write
        raise OSError(28, "No space left on device")

    saving.write_stream = full
    run = open_run(tree)
    seen = step_until(run, SAVE - 1, save_at=SAVE - 1) + step_until(run, END, save_at=SAVE)
    run.saver.finish()
    return seen


def test_a_save_that_the_disk_refuses_leaves_nothing_swapped_in(folder: Path) -> None:
    tree = swapped_tree(folder, "full", ONE, checkpoints=WAITS)
    seen = run_ranks(1, save_on_a_full_disk, tree)[0]
    assert run_ranks(1, train_steps, tree, END)[0] == seen[SAVE:]


def train_in_scratch(tree: dict[str, Any], is_killed: bool) -> list[str]:
    """Train as a rank of ``gptdist.train`` does, to its end or until it is killed; return which ranks have files."""
    import os
    import signal

    import torch.distributed as dist

    from gptdist.config.run import RunConfig
    from gptdist.train.build import build, join
    from gptdist.train.stop_signal import StopSignal
    from gptdist.train.swap_folder import scratch

    config = RunConfig.from_tree(tree)
    mesh, device = join(config, local_rank=0)
    with scratch(config, mesh, local_rank=mesh.rank):
        run = build(config, mesh, device, StopSignal())
        step_until(run, run.state.step + 1)
        dist.barrier()
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return _ranks_with_files(Path(tree["memory"]["nvme_path"]))


def _ranks_with_files(disk: Path) -> list[str]:
    return sorted({path.parents[3].name for path in disk.rglob("*.swp")})


def test_files_are_the_runs_own_and_go_with_it_or_with_the_next_attempt(folder: Path) -> None:
    disk = folder / "disk-of-two"
    disk.mkdir()
    memory = {"offload_optimizer": "nvme", "nvme_path": str(disk)}
    with pytest.raises(AssertionError, match="died without a word"):
        run_ranks(2, train_in_scratch, swapped_tree(folder, "killed", TWO, memory=memory), True)
    assert _ranks_with_files(disk) == ["rank_00000", "rank_00001"]
    (left,) = disk.iterdir()
    run_ranks(1, train_in_scratch, swapped_tree(folder, "other", ONE, memory=memory), False)
    assert list(disk.iterdir()) == [left], "another run takes its own files away, and no others"
    fewer = swapped_tree(folder, "killed", ONE, memory=memory)
    assert run_ranks(1, train_in_scratch, fewer, False)[0] == ["rank_00000"]
    assert list(disk.iterdir()) == []
