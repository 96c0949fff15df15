"""The benchmark of checkpoints does what its tables say, on a tiny model: values come back on every way."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import checkpoint
from tests.support.datasets import run_tree
from tests.support.ranks import run_ranks

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


@pytest.mark.parametrize(
    ("ratios", "target", "at_least", "said"),
    [
        ([1.0, 3.0, 1.1], 1.2, False, "1.100 x  (1.000 to 3.000)  (target at most 1.2, reached)"),
        ([1.0, 3.0, 1.3], 1.2, False, "1.300 x  (1.000 to 3.000)  (target at most 1.2, MISSED)"),
        ([0.9, 0.7, 0.8], 0.8, True, "0.800 x  (0.700 to 0.900)  (target at least 0.8, reached)"),
        ([0.7], 0.8, True, "(target at least 0.8, MISSED)"),
        ([0.7], None, False, "0.700 x  (0.700 to 0.700)"),
    ],
)
def test_a_target_is_reached_or_missed(capsys, ratios: list[float], target, at_least: bool, said: str) -> None:
    checkpoint.show_ratio("name", ratios, target, at_least=at_least)
    assert capsys.readouterr().out.strip().endswith(said)


def test_ratios_are_taken_round_by_round() -> None:
    seconds = checkpoint.Seconds()
    seconds.of |= {"one": [1.0, 4.0], "other": [2.0, 2.0]}
    assert seconds.ratio("one", "other") == [0.5, 2.0]
