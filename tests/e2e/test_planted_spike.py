"""A launched run in whose shards garbage is planted: it recovers without a hand, killed in the midst of it or not."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from gptdist.checkpoint.audit import audit
from gptdist.cli.main import main
from gptdist.errors import EXIT_USER_ERROR
from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import GPT2
from tests.support.jobs import train_run
from tests.support.planted import GOOD, PLANTED, write_planted
from tests.support.ranks import repository, run_ranks

START_TIMEOUT_SECONDS = 300
END = 96
BAD = range(480, 512)
"""Samples of garbage: those of the steps 61 to 64. The third skipped step leads back to 56, and on with sample 504, so
that the last 8 come in step 57, which is skipped too."""

SKIPPED = [(61, 480), (62, 488), (63, 496), (57, 504)]
"""Steps and their first samples, in their order."""

LOSS_TOLERANCE = 0.05
"""Nats a token of the validation loss at the end, between the run that recovered and one whose data are good: it falls
by about 0.01 a step there, and they have seen other samples. The garbage is 4 above."""

Config = dict[str, Any]


def _tree(folder: Path, name: str, source: str) -> Config:
    return {
        "name": name,
        "run_dir": str(folder / name),
        "model": GPT2 | {"hidden_dropout": 0.1, "attention_dropout": 0.1},
        "data": {
            "tokenizer": str(folder / "data" / "tokenizer"),
            "sources": [{"path": str(folder / "data" / source / "words")}],
        },
        "batch": {"global_batch_size": 8, "micro_batch_size": 2},
        "training": {"train_steps": END, "device": "cpu", "collective_timeout_seconds": 60.0},
        "optimizer": {"lr": 3e-3},
        "schedule": {"warmup_steps": 2},
        "intervals": {"log_steps": 1, "eval_steps": 1000, "save_steps": 8},
        "guards": {"window_steps": 32, "min_steps": 16, "max_skips": 2},
        "launch": {"ranks_per_node": 2, "threads_per_rank": 1},
        "telemetry": {"tensorboard": False},
    }


def _launch(folder: Path, tree: Config) -> subprocess.Popen:
    config = folder / f"{tree['name']}.yaml"
    config.write_text(yaml.safe_dump(tree))
    argv = [sys.executable, "-m", "gptdist.cli.main", "launch", "local", str(config)]
    with config.with_suffix(".log").open("a") as log:
        return subprocess.Popen(argv, cwd=repository(), stdout=log, stderr=subprocess.STDOUT)


def _finish(folder: Path, tree: Config) -> tuple[int, str]:
    status = _launch(folder, tree).wait(timeout=START_TIMEOUT_SECONDS)
    return status, (folder / f"{tree['name']}.log").read_text()


def _kill_at(folder: Path, tree: Config, event: str) -> None:
    """Launch, and kill everything with SIGKILL as soon as the ledger has another ``event``."""
    ledger, deadline = folder / tree["name"] / "ledger.jsonl", time.monotonic() + START_TIMEOUT_SECONDS
    begun = len(read_json_lines(ledger))
    process = _launch(folder, tree)
    while all(one["event"] != event for one in read_json_lines(ledger)[begun:]):
        assert process.poll() is None, (folder / f"{tree['name']}.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    root = psutil.Process(process.pid)
    for victim in [*root.children(recursive=True), root]:
        victim.kill()
    process.wait()


def _rows(run: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_json_lines(run / "metrics.jsonl") if row["kind"] == kind]


def _losses(run: Path) -> dict[tuple[int, int], float]:
    """Return the loss of each step and the samples that were consumed then, by which a step done again is told."""
    return {(row["step"], row["consumed_samples"]): row["loss"] for row in _rows(run, "train")}


def _actions(run: Path) -> list[dict[str, Any]]:
    """Return what the guards did, without times and attempts, and once where a killed run did it again."""
    events = [event for event in read_json_lines(run / "ledger.jsonl") if event["event"] in ("skip", "rewind")]
    other = ("attempt", "time", "batch", "digest")
    shown = [{key: value for key, value in one.items() if key not in other} for one in events]
    return [one for index, one in enumerate(shown) if one not in shown[:index]]


def _traced(run: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[tuple[int, str, int]]:
    """Return sample, file and record of the document that each sample of a step is, by ``gptdist data trace``."""
    assert main(["data", "trace", "--run", str(run), "--json", *words]) == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    return [(one["sample"], one["documents"][0]["path"], one["documents"][0]["record"]) for one in samples]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module")
def document_of(folder: Path) -> dict[int, int]:
    """Return the document that each sample is; both datasets are there then."""
    (folder / "data").mkdir()
    write_planted(folder / "data" / "clean" / "words", _tree(folder, "clean", "clean"), ())
    (folder / "data" / "clean" / "tokenizer").rename(folder / "data" / "tokenizer")
    return write_planted(folder / "data" / "bad" / "words", _tree(folder, "whole", "bad"), BAD)


@pytest.fixture(scope="module")
def recovered(folder: Path, document_of: dict[int, int]) -> Path:
    """Return the folder of a run that nobody touched."""
    status, log = _finish(folder, _tree(folder, "whole", "bad"))
    assert status == 0, log
    return folder / "whole"


def test_it_ends_as_if_the_data_were_good(folder: Path, recovered: Path) -> None:
    run_ranks(2, train_run, _tree(folder, "clean", "clean"))
    (clean,), (found,) = _rows(folder / "clean", "validation"), _rows(recovered, "validation")
    assert found["step"] == END
    assert found["validation_loss"] == pytest.approx(clean["validation_loss"], abs=LOSS_TOLERANCE)
    assert not _actions(folder / "clean")


def test_every_action_is_in_the_ledger_and_the_dump_names_the_plant(recovered: Path, document_of, capsys) -> None:
    actions = _actions(recovered)
    skips = [one for one in actions if one["event"] == "skip"]
    assert [(one["step"], one["first_sample"]) for one in skips] == SKIPPED
    assert all(one["z_score"] > 10.0 for one in skips)
    assert [one["event"] for one in actions] == ["skip", "skip", "skip", "rewind", "skip"]
    back = actions[3]
    assert (back["step"], back["to_step"], back["first_sample"], back["last_sample"]) == (63, 56, 448, 503)
    events = read_json_lines(recovered / "ledger.jsonl")
    for event in events:
        if event["event"] == "skip":
            dumped = read_json_lines(recovered / event["batch"])
            assert sorted(one["sample"] for one in dumped) == list(
                range(event["first_sample"], event["last_sample"] + 1)
            )
            for one in dumped:
                assert one["documents"][0]["path"] == PLANTED
                assert one["documents"][0]["record"] == document_of[one["sample"]]
    assert events[-1]["event"] == "done"


@pytest.fixture(scope="module")
def killed(folder: Path, document_of: dict[int, int]) -> Path:
    """Return the folder of a run that was killed when it had skipped a step, and again when it had gone back."""
    tree = _tree(folder, "killed", "bad")
    for event in ("skip", "rewind"):
        _kill_at(folder, tree, event)
    status, log = _finish(folder, tree)
    assert status == 0, log
    return folder / "killed"


def test_killed_in_the_midst_of_it_the_same_command_does_the_same(killed: Path, recovered: Path) -> None:
    expected = _losses(recovered)
    for row in _rows(killed, "train"):  # the repeated ones too
        assert row["loss"] == expected[row["step"], row["consumed_samples"]]
    assert _losses(killed).keys() == expected.keys()
    assert _actions(killed) == _actions(recovered)
    losses = [_rows(run, "validation")[-1]["validation_loss"] for run in (killed, recovered)]
    assert losses[0] == losses[1]


def test_a_trace_knows_both_readings_of_a_step(recovered: Path, killed: Path, document_of, capsys) -> None:
    for run in (recovered, killed):
        back = next(one for one in read_json_lines(run / "ledger.jsonl") if one["event"] == "rewind")
        before = _traced(run, capsys, "--step", "63", "--attempt", str(back["attempt"]))
        assert before == [(sample, PLANTED, document_of[sample]) for sample in range(496, 504)]
        assert _traced(run, capsys, "--step", "57") == [
            (sample, PLANTED, document_of[sample]) for sample in range(504, 512)
        ]
        assert _traced(run, capsys, "--step", "63") == [
            (sample, GOOD, document_of[sample]) for sample in range(552, 560)
        ]


def test_a_triage_shows_the_plant_and_what_the_guards_did(recovered: Path, document_of, capsys) -> None:
    words = ["triage", str(recovered), "--step", "63", "--attempt", "1", "--no-gradients", "--samples", "1"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for sample in found["batch"]["samples"]:
        (part,) = sample["documents"][:1]
        assert (part["path"], part["record"]) == (PLANTED, document_of[sample["sample"]])
        assert sample["reason"] == "odd_characters"
        assert {"loss", "rarity"} <= sample["measures"].keys(), "the dump of the step has the loss"
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "guards: the run went back from step 63 to 56, and passed over samples 448 to 503" in out
    assert "records are odd from step 61 on" in out
    assert f"last good checkpoint: {recovered}/checkpoints/step_00000056" in out
    assert "no need to go back: step 63 was skipped, the weights have not learnt from it" in out


def test_a_dump_stands_in_for_data_that_is_gone(folder: Path, recovered: Path, document_of, capsys) -> None:
    gone = (folder / "data" / "bad").rename(folder / "data" / "gone")
    try:
        words = ["triage", str(recovered), "--step", "63", "--attempt", "1", "--samples", "2"]
        assert main(words) == EXIT_USER_ERROR
    finally:
        gone.rename(folder / "data" / "bad")
    said = capsys.readouterr()
    assert "does not exist" in said.err
    (dumped,) = (recovered / "spikes").glob("step_00000063_*.jsonl")
    worst = read_json_lines(dumped)[0]["sample"]
    shown = [line for line in said.out.splitlines() if line.startswith(("sample ", "    from "))]
    assert shown[0].startswith(f"sample {worst} ")
    assert f"from {PLANTED}, record {document_of[worst]}" in shown[1]
    assert "loss: of the weights of then, as written when the step was skipped" in said.out


def test_an_audit_accounts_for_kills_skips_and_the_rewind(recovered: Path, killed: Path, capsys) -> None:
    for run in (recovered, killed):
        assert main(["audit", str(run)]) == 0, capsys.readouterr().out
        assert capsys.readouterr().out.splitlines()[-1] == (
            "PASS  824 samples up to step 96: 760 in steps that were taken, 8 in 1 skipped steps, 56 passed over by 1 "
            "rewinds; none twice, none left out"
        )
    found = audit(killed)
    assert [one.end is None for one in found.attempts.values()].count(True) >= 2, "two kills"
    assert found.attempts.keys() > {one.number for one in found.line}, "an attempt was lost whole, or in part"


def test_a_replay_of_the_killed_run_is_the_run(killed: Path, capfd) -> None:
    assert main(["resume-check", str(killed)]) == 0, capfd.readouterr().err
    said = capfd.readouterr().out
    assert "8 of 8 steps compared, at most 0.00e+00 apart" in said
    assert said.splitlines()[-1] == "PASS  steps 89 to 96 come out bit for bit, and lead to step_00000096"


def test_swapped_data_and_an_edited_ledger_fail(folder: Path, killed: Path, capsys) -> None:
    """Shards of other bytes under the same manifest: found before any rank starts."""
    other = folder / "swapped"
    shutil.copytree(killed, other)
    ledger = other / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"last_sample": 503', '"last_sample": 495', 1))
    assert main(["audit", str(other)]) == 1
    assert "does not follow from the line before; it was edited" in capsys.readouterr().out
    data = folder / "data" / "bad" / "words"
    kept = {path: path.read_bytes() for path in data.glob("train-*.bin")}
    try:
        for path in kept:
            path.write_bytes((folder / "data" / "clean" / "words" / path.name).read_bytes()[::-1])
        assert main(["resume-check", str(other)]) == 1
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    assert "FAIL" in (said := capsys.readouterr().out)
    assert "a shard has changed under its manifest, see 'gptdist data verify', and restore the data" in said


def test_where_it_may_not_go_back_it_ends_with_a_line(folder: Path, document_of) -> None:
    tree = _tree(folder, "limited", "bad") | {"launch": {"ranks_per_node": 1, "threads_per_rank": 1}}
    status, log = _finish(folder, tree | {"guards": tree["guards"] | {"max_rewinds": 0}})
    assert status == EXIT_USER_ERROR
    (line,) = [line for line in log.splitlines() if line.startswith("gptdist: error: ")]
    assert line.startswith("gptdist: error: step 63: loss ")
    assert "guards.max_rewinds allows 0; look at " in line
