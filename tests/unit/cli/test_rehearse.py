"""What a rehearsal refuses before any rank starts, what it makes, and how it reads what a run has left."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptdist.checkpoint.seals import Protection
from gptdist.cli import rehearse_phases
from gptdist.cli.main import main
from gptdist.cli.rehearse_materials import Rehearsal, checked_folder, prepare
from gptdist.cli.rehearse_phases import FIRST_LOSS_MARGIN, Phase
from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from gptdist.data.made import make_dataset
from gptdist.data.manifest import DatasetManifest
from gptdist.errors import ConfigError, DataError
from gptdist.telemetry.rank_log import Failure
from gptdist.tokenizer.byte import ByteTokenizer
from launch.outcome import Outcome, leave_outcome
from tests.support.datasets import GPT2, LLAMA, run_tree

ABSENT: dict[str, Any] = {
    "name": "real",
    "model": GPT2 | {"vocab_size": 50257},
    "data": {"tokenizer": "nowhere/t", "sources": [{"path": "nowhere/web"}, {"path": "nowhere/code"}]},
    "batch": {"global_batch_size": 64, "micro_batch_size": 2},
    "training": {"train_steps": 1000, "precision": "fp32"},
    "parallel": {"tensor_parallel_size": 4},
    "launch": {"ranks_per_node": 8},
}


def _prepared(folder: Path, tree: dict[str, Any] = ABSENT, **options: Any) -> Rehearsal:
    given = {"nodes": 2, "ranks": None, "real_data": None} | options
    return prepare(RunConfig.from_tree(tree), checked_folder(folder / "kept"), **given)


def _refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], tree: dict[str, Any], *words: str) -> list[str]:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert main(["rehearse", str(path), *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return [line.removeprefix("gptdist rehearse: error: ") for line in shown.err.splitlines()]


def test_an_illegal_layout_is_refused_with_every_reason(tmp_path: Path, capsys) -> None:
    lines = _refused(tmp_path, capsys, ABSENT, "parallel.tensor_parallel_size=3", "optimizer.lr=-1")
    assert lines == [f"{tmp_path}/run.yaml: optimizer.lr: must be above 0, got -1.0"]
    lines = _refused(tmp_path, capsys, ABSENT, "parallel.tensor_parallel_size=3", "parallel.zero_stage=4")
    assert len(lines) > 3
    assert "does not divide the number of ranks (8)" in lines[1]
    assert "--nodes: must be at least 1, got 0" in _refused(tmp_path, capsys, ABSENT, "--nodes", "0")


def test_options_that_do_not_do(tmp_path: Path, capsys) -> None:
    (line,) = _refused(tmp_path, capsys, ABSENT, "--ranks", "32", "--nodes", "2")
    assert line == "--ranks: 32 are no small copy of the job's 16; use one of [1, 2, 3, 4, 6, 8, 16]"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (line,) = _refused(tmp_path, capsys, ABSENT, "--keep", str(tmp_path / "full"))
    assert line == f"--keep: '{tmp_path}/full' is not empty; name a new folder"
    with pytest.raises(ConfigError, match=r"^--keep: '.*file' is no folder to write to \(File exists\); name another$"):
        checked_folder(tmp_path / "full" / "file")


def test_real_data_that_is_missing_is_an_error_only_where_it_is_asked_for(tmp_path: Path, capsys) -> None:
    lines = _refused(tmp_path, capsys, ABSENT, "--real-data")
    assert lines[0].startswith("data.tokenizer: folder 'nowhere/t' does not exist; prepare it")
    assert [line.split(":")[0] for line in lines[1:]] == ["data.sources[0].path", "data.sources[1].path"]
    rehearsal = _prepared(tmp_path)
    assert rehearsal.missing == tuple(lines)
    assert rehearsal.small.config.data.path_problems() == [], "made in their place"


def test_real_data_is_opened_with_the_real_config(tmp_path: Path) -> None:
    tree = run_tree(tmp_path)
    rehearsal = _prepared(tmp_path, tree, nodes=1)
    assert rehearsal.data == "the run's own, opened as the real run would: prose, code"
    assert rehearsal.small.config.data.sources == RunConfig.from_tree(tree).data.sources
    assert rehearsal.missing == ()
    made = prepare(RunConfig.from_tree(tree), checked_folder(tmp_path / "2"), nodes=1, ranks=None, real_data=False)
    assert made.small.config.data.sources[0].path == tmp_path / "2" / "data" / "sources" / "prose"
    epochs = tree | {"data": tree["data"] | {"sources": [{"path": str(tmp_path / "data/prose"), "max_epochs": 0.001}]}}
    with pytest.raises(ConfigError, match=r"^data.sources\[0\].max_epochs: 0.001, but 6 steps"):
        prepare(RunConfig.from_tree(epochs), tmp_path / "3", nodes=1, ranks=None, real_data=None)
    (tmp_path / "data" / "prose" / "train-00000.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"prose/train-00000.bin"):
        prepare(RunConfig.from_tree(tree), tmp_path / "4", nodes=1, ranks=None, real_data=True)


def test_a_small_run_that_cannot_be_trained_is_told(tmp_path: Path) -> None:
    tree = ABSENT | {"training": {"train_steps": 9, "device": "cuda"}, "parallel": {"zero_stage": 0}}
    with pytest.raises(ConfigError, match=r"^the small run cannot be trained: parallel.zero_stage: DeepSpeed has no"):
        _prepared(tmp_path, tree)


def test_what_is_rehearsed_is_said(tmp_path: Path) -> None:
    tree = ABSENT | {"telemetry": {"wandb": {"project": "p"}}}
    heading = "\n".join(_prepared(tmp_path, tree).heading())
    for part in (
        "real: 16 ranks = data 4 x tensor 4, ZeRO 1\nrehearsed as: 4 ranks = data 2 x tensor 2, ZeRO 1",
        "\nchanged:\n  batch.global_batch_size: 64 → 8\n",
        "\n  model.vocab_size: 50257 → 257\n",
        "\nleft out:\n  telemetry.wandb: nothing is sent\n",
        "\nnot on this machine:\n  data.tokenizer: folder",
    ):
        assert part in heading


def _left(rehearsal: Rehearsal, **first: Any) -> None:
    """Leave what a run leaves that took one step."""
    folder = rehearsal.small.config.folder
    folder.mkdir()
    row = {"kind": "train", "step": 1, "loss": math.log(257), "skipped": False, "step_seconds": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps(row | first) + "\n")


def test_a_first_loss_that_no_untrained_model_has(tmp_path: Path) -> None:
    for number, wrong in enumerate((FIRST_LOSS_MARGIN, -FIRST_LOSS_MARGIN)):
        near, far = (_prepared(tmp_path / f"{number}{name}") for name in ("near", "far"))
        _left(near, loss=math.log(257) + 0.99 * wrong)
        assert rehearse_phases._stepped(near, 0.0).status == "ok"
        _left(far, loss=math.log(257) + 1.01 * wrong)
        phase = rehearse_phases._stepped(far, 0.0)
        assert phase.status == "FAILED"
        assert "of an untrained model it is near ln(257) = 5.5491; see model.init" in phase.text


def test_a_step_that_the_guards_refuse(tmp_path: Path) -> None:
    rehearsal = _prepared(tmp_path)
    _left(rehearsal, skipped=True, loss=None)
    phase = rehearse_phases._stepped(rehearsal, 0.0)
    assert phase.status == "FAILED"
    assert "the guards refused steps [1]" in phase.text


def test_a_set_without_a_loss(tmp_path: Path) -> None:
    rehearsal = _prepared(tmp_path)
    _left(rehearsal, kind="validation", validation_loss=5.0, loss_web=5.0)
    phase = rehearse_phases._validated(rehearsal, 0.0)
    assert (phase.status, phase.text) == ("FAILED", "no finite loss of code")


def test_one_checkpoint_is_not_enough(tmp_path: Path) -> None:
    rehearsal = _prepared(tmp_path)
    phase = rehearse_phases._saved(rehearsal, 0.0)
    assert (phase.status, phase.text) == ("FAILED", "0 checkpoints are there; see checkpoints.keep")


def test_a_damaged_checkpoint_is_found(tmp_path: Path) -> None:
    rehearsal = _prepared(tmp_path)
    (rehearsal.small.config.checkpoints_folder / "step_00000002").mkdir(parents=True)
    phase = rehearse_phases._verified(rehearsal)
    assert phase.status == "FAILED"
    assert "step_00000002" in phase.text


def test_a_copy_that_never_came_is_found(tmp_path: Path) -> None:
    rehearsal = _prepared(tmp_path, ABSENT | {"checkpoints": {"remote": {"url": "s3://bucket/runs"}}})
    (rehearsal.small.config.checkpoints_folder / "step_00000002").mkdir(parents=True)
    phase = rehearse_phases._verified(rehearsal)
    assert phase.status == "FAILED"
    assert "store: has no copy of step_00000002; see the log in launch.txt" in phase.details


def test_a_replay_that_is_refused_says_why(tmp_path: Path) -> None:
    rehearsal = _prepared(tmp_path)
    phase = rehearse_phases._replayed(rehearsal, "reshard", ["parallel.zero_stage=2"])
    assert phase.status == "FAILED"
    assert phase.text.startswith("parallel.zero_stage=2: gptdist resume-check: error: ")
    assert "holds no checkpoint" in phase.text
    assert "$ gptdist resume-check " in (tmp_path / "kept" / "reshard.txt").read_text()


def test_a_model_without_counterpart_is_told_and_is_no_failure(tmp_path: Path) -> None:
    learned = {"model": LLAMA | {"position_embedding": "learned"}, "checkpoints": {"exportable": False}}
    phase = rehearse_phases._exported(_prepared(tmp_path, ABSENT | learned))
    assert phase.status == "none"
    assert phase.text.startswith("model.position_embedding: learned has no counterpart in LlamaForCausalLM")


def test_keys_are_made_for_it_and_are_private(tmp_path: Path) -> None:
    protection = {"encrypt": True, "key_path": "k", "signing_key_path": "s", "trusted_key_path": "t"}
    tree = ABSENT | {"checkpoints": {"protection": protection, "remote": {"url": "s3://bucket/runs"}}}
    rehearsal = _prepared(tmp_path, tree)
    found = Protection.of(rehearsal.small.config.checkpoints.protection)
    assert found.sealing_key is not None
    assert found.trusted_key is not None
    assert (tmp_path / "kept" / "keys").stat().st_mode & 0o077 == 0
    assert rehearsal.materials.store.is_dir()
    assert "checkpoints.protection.signing_key_path: s is no file" in rehearsal.missing[3]


def test_the_config_that_is_written_is_the_small_one(tmp_path: Path) -> None:
    rehearsal = _prepared(tmp_path)
    assert load_config(RunConfig, rehearsal.config_path) == rehearsal.small.config


START = {"event": "start", "time": 3.0, "layout": "2 ranks"}
TRAIN = {"kind": "train", "step": 1, "loss": math.log(257), "skipped": False, "step_seconds": 0.5}
SAVED = {"event": "checkpoint", "stall_seconds": 0.1, "write_seconds": 0.2, "bytes": 9}
VALIDATION = {"kind": "validation", "validation_loss": 5.0, "loss_web": 5.0, "loss_code": 5.0}


@pytest.mark.parametrize(
    ("phase", "records", "expected"),
    [
        ("join", [], ["launch FAILED"]),
        ("checkpoint", [], ["launch FAILED"]),
        ("forward_backward", [START], ["launch ok", "step FAILED"]),
        ("data", [START, TRAIN, VALIDATION], ["launch ok", "step FAILED"]),
        ("evaluation", [START, TRAIN], ["launch ok", "step ok", "validation FAILED"]),
        ("evaluation", [START, TRAIN, VALIDATION], ["launch ok", "step ok", "validation FAILED"]),
        ("checkpoint", [START, TRAIN, VALIDATION], ["launch ok", "step ok", "validation ok", "save FAILED"]),
        (None, [START, TRAIN, VALIDATION], ["launch ok", "step ok", "validation ok", "save FAILED"]),
        (None, [START, TRAIN, VALIDATION, SAVED], ["launch ok", "step ok", "validation ok", "save FAILED"]),
        (None, [], ["launch FAILED"]),
    ],
)
def test_the_phase_that_failed_is_the_one_that_is_blamed(
    tmp_path: Path, phase: str | None, records: list[dict[str, Any]], expected: list[str]
) -> None:
    rehearsal = _prepared(tmp_path)
    run = rehearsal.small.config.folder
    logs = run / "logs" / "launch_0001"
    logs.mkdir(parents=True)
    for name, key in (("ledger.jsonl", "event"), ("metrics.jsonl", "kind")):
        (run / name).write_text("".join(f"{json.dumps(record)}\n" for record in records if key in record))
    failures = () if phase is None else (Failure("error", 1, "here", 1.0, 1, phase, "Traceback\nOSError: full"),)
    leave_outcome(logs, "here", Outcome(1, 1, failures))
    done = rehearse_phases._Done(1, 9.0, "", "torchrun: bad\ngptdist launch: error: no port\nmore\n")
    found = list(rehearse_phases._trained(rehearsal, done, 1.0))
    assert [f"{one.name} {one.status}" for one in found] == expected
    if phase is None:
        assert found[-1].text == "gptdist launch: error: no port"
    else:
        assert found[-1].text == f"rank 1 on here failed first, after step 1, in '{phase}': OSError: full"
        assert found[-1].details == "Traceback\nOSError: full"


def test_packed_data_keeps_its_sample_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = run_tree(tmp_path, model={"seq_length": 64})
    monkeypatch.setattr("gptdist.data.made.made_documents", lambda count, seed: [seed[:1] * 31] * count)
    make_dataset(tmp_path / "packed", ByteTokenizer())
    manifest = DatasetManifest.read(tmp_path / "packed")
    replace(manifest, packing={"method": "best_fit", "seq_length": 64}).write(tmp_path / "packed")
    assert _prepared(tmp_path / "plain", tree, nodes=1).small.config.model.seq_length == 32
    tree["data"]["validation"] = [{"name": "packed", "path": str(tmp_path / "packed")}]
    assert _prepared(tmp_path / "packed too", tree, nodes=1).small.config.model.seq_length == 64


def test_an_outcome_without_failures_is_none(tmp_path: Path) -> None:
    assert rehearse_phases._first_failure(tmp_path) is None
    logs = tmp_path / "logs" / "launch_0001"
    logs.mkdir(parents=True)
    leave_outcome(logs, "here", Outcome(1, 3))
    assert rehearse_phases._first_failure(tmp_path) is None


def test_a_line_of_the_table() -> None:
    phase = Phase("launch", "ok", 12.345, "all of it")
    assert phase.line() == "launch      ok        12.3 s  all of it"
    assert phase.tree() == {"name": "launch", "status": "ok", "seconds": 12.345, "text": "all of it"}
