"""Ranks refuse a run that reads a source too often, also where no launcher has looked before."""

from pathlib import Path

import pytest

from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import run_tree
from tests.support.jobs import train_steps
from tests.support.ranks import run_ranks


def test_every_rank_refuses_and_no_attempt_is_noted(tmp_path: Path) -> None:
    tree = run_tree(tmp_path, launch={"ranks_per_node": 2})
    run_ranks(2, train_steps, tree, 2, 2)
    tree["data"]["sources"][0]["max_epochs"] = 0.02
    with pytest.raises(
        AssertionError, match=r"data.sources\[0\].max_epochs: 0.02, but 6 steps .*; train at most"
    ) as failure:
        run_ranks(2, train_steps, tree, 6)
    assert str(failure.value).count("max_epochs: 0.02, but") >= 2
    assert [event["event"] for event in read_json_lines(tmp_path / "run" / "ledger.jsonl")] == ["start", "checkpoint"]
