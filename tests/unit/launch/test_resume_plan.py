"""A replay is planned from manifests and the ledger alone, and refused where no one config did its steps."""

import json
from pathlib import Path

import pytest

from gptdist.checkpoint.manifest import Manifest
from gptdist.checkpoint.seals import write_manifest
from gptdist.errors import CheckpointError
from gptdist.telemetry.ledger import append_json_line
from launch.resume_plan import make_plan
from tests.support.made_ledger import MadeRun

FIRST, LAST = 40, 80


def _resumed(tmp_path: Path, **changes) -> tuple[MadeRun, Path, Path]:
    """A run that resumed at step 60, whose checkpoint is gone, with other ``changes``."""
    made = MadeRun(tmp_path)
    ledger = made.start(0, 0, None)
    before = made.save(FIRST, 1)
    made.saved(ledger, 60, 480)
    made.start(60, 480, 1, **changes)
    return made, before, made.save(LAST, 2, **changes)


def test_steps_of_two_configs_are_refused(tmp_path: Path) -> None:
    _, before, saved = _resumed(tmp_path, optimizer={"lr": 1e-5})
    wanted = r"attempt 2 went on from step 60 with optimizer.lr: 0.003 → 1e-05, and that checkpoint is gone"
    with pytest.raises(CheckpointError, match=wanted):
        make_plan(before, saved, [], steps=None)


def test_keys_without_effect_may_change_and_old_steps_come_from_the_metrics(tmp_path: Path) -> None:
    made, before, saved = _resumed(tmp_path, intervals={"log_steps": 7})
    for attempt, loss in ((1, 3.0), (2, 2.0)):
        row = {"kind": "train", "attempt": attempt, "step": 61, "consumed_samples": 488, "loss": loss, "grad_norm": 1.0}
        append_json_line(made.run / "metrics.jsonl", row)
    plan = make_plan(before, saved, [], steps=None)
    assert (plan.until, plan.is_whole, plan.is_same_layout) == (LAST, True, True)
    assert {step: record.loss for step, record in plan.recorded.items()} == {61: 2.0, 79: 79.0, 80: 80.0}
    with pytest.raises(CheckpointError, match=r"--steps: 20, but of the steps .* the first whose .* is 61; ask for 21"):
        make_plan(before, saved, [], steps=20)
    part = make_plan(before, saved, ["parallel.zero_stage=2"], steps=21)
    assert (part.until, part.is_whole, part.is_same_layout) == (61, False, False)


def test_a_folder_that_no_step_led_to_is_refused(tmp_path: Path) -> None:
    made = MadeRun(tmp_path)
    made.start(0, 0, None)
    before, saved = made.save(FIRST, 1), made.save(LAST, 1)
    manifest = Manifest.from_tree(json.loads((saved / "manifest.json").read_text()))
    bare = manifest.model_copy(update={"progress": manifest.progress.model_copy(update={"proof": None})})
    write_manifest(saved, bare)
    with pytest.raises(CheckpointError, match="no training step led to it"):
        make_plan(before, saved, [], steps=None)
