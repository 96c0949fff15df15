"""A checkpoint carries its last losses and gradient norms bit for bit, and whose it is."""

import json
from pathlib import Path

from gptdist.checkpoint.manifest import read_manifest
from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import run_tree
from tests.support.jobs import train_steps
from tests.support.ranks import run_ranks


def test_steps_are_kept_over_a_resume_bit_for_bit(tmp_path: Path) -> None:
    tree = run_tree(tmp_path)
    seen = run_ranks(1, train_steps, tree, 2, 2)[0] + run_ranks(1, train_steps, tree, 4, 4)[0]
    proof = read_manifest(tmp_path / "run" / "checkpoints" / "step_00000004").progress.proof
    assert proof is not None
    assert [(one.step, one.loss, one.grad_norm) for one in proof.steps] == seen
    assert (proof.attempt, proof.next_batch.first_sample) == (2, 32)
    events = read_json_lines(tmp_path / "run" / "ledger.jsonl")
    assert [event.get("from_attempt") for event in events if event["event"] == "start"] == [None, 1]
    saved = [event for event in events if event["event"] == "checkpoint"]
    assert [event["consumed_samples"] for event in saved] == [16, 32]
    assert saved[0]["order"] == events[2]["order"], json.dumps(events[:3])
