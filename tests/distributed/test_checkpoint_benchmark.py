"""The benchmark of checkpoints does what its tables say, on a tiny model: values come back on every way."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import checkpoint
from benchmarks.checkpoint_figures import PEERS, Seconds, same_layout
from tests.support.datasets import run_tree
from tests.support.ranks import run_ranks

STATES = ("cold", "warm")
WAYS = {"save": "load", "save_async": "resume", "deepspeed_save": "deepspeed_load", "dcp_save": "dcp_load"}


def save_and_load(tree: dict[str, Any], peers: str) -> list[dict[str, Any]]:
    """Save and load on each way, after one step."""
    from benchmarks.checkpoint_rank import Operations
    from gptdist.train.loop import train_step
    from tests.support.jobs import open_run

    run = open_run(tree)
    run.state.advance(train_step(run))
    operations = Operations(run)
    facts = operations.answer({"do": "facts"})
    assert facts["parameters"] > 0
    found = []
    for save, load in WAYS.items():
        place = {} if save.startswith("save") else {"folder": f"{peers}/{save}"}
        saved = operations.answer({"do": save, **place, "memory": True})
        loaded = operations.answer({"do": load, "folder": saved["folder"]})
        assert loaded["checksum"] == facts["checksum"], load
        found.append(saved)
    operations.answer({"do": "read", "folder": found[0]["folder"]})
    assert len(operations._target) * 2 == pytest.approx(checkpoint._size(Path(found[0]["folder"])), rel=0.1)
    return found


def test_values_come_back_on_every_way(tmp_path: Path) -> None:
    saved = run_ranks(2, save_and_load, run_tree(tmp_path), str(tmp_path))[0]
    assert all(one["seconds"] > 0 for one in saved)
    assert 0 < saved[1]["stall"] <= saved[1]["seconds"]
    assert saved[2]["fsync"] < saved[2]["seconds"]
    copied = checkpoint._dd(Path(saved[0]["folder"]), tmp_path / "copied")
    for file in Path(saved[0]["folder"]).glob("*.safetensors"):
        assert Path(copied["folder"], file.name).read_bytes() == file.read_bytes()


def test_ratios_are_taken_round_by_round() -> None:
    seconds = Seconds()
    seconds.of |= {"one": [1.0, 4.0], "other": [2.0, 2.0]}
    assert seconds.beside("save", ("one", "other"), "dd").ratios == [0.5, 2.0]


def test_every_other_round_goes_backwards() -> None:
    folders = {way: ({"folder": way}, 1) for way in ("save", "deepspeed_save", "dcp_save")}
    forwards = checkpoint._loads(folders, is_backwards=False)
    assert forwards[0] == ("read", "save")
    assert checkpoint._loads(folders, is_backwards=True) == forwards[::-1]


def test_each_tool_has_its_row_and_a_missed_target_is_told() -> None:
    names = ("save", "save_async", "stall", "dd", "deepspeed_save", "deepspeed_cached", "dcp_save", "dcp_save_async")
    loads = [f"{way} {state}" for way in ("read", "load", "resume", "deepspeed_load", "dcp_load") for state in STATES]
    seconds = Seconds()
    seconds.of |= {name: [2.0, 2.0] for name in (*names, "dcp_stall", *loads)}
    seconds.of["load cold"] = [3.0, 3.0]
    sizes = {"save": 1212, "dd": 1200, "deepspeed_save": 1400, "dcp_save": 1100}
    found = same_layout(seconds, sizes, {"parameters": 100}, 0.5, 1)
    by_peer = {peer: {one.name for one in found if one.peer == peer} for peer in PEERS.values()}
    assert len(by_peer["DeepSpeed"]) == 4
    assert by_peer["torch.distributed.checkpoint"] - by_peer["DeepSpeed"] == {
        "stall of an asynchronous save, 1 rank",
        "asynchronous save until it is on the disk, 1 rank",
    }
    assert {one.name for one in found if one.is_reached is False} == {
        "load, cold, 1 rank",
        "stall of an asynchronous save, 1 rank",
    }
