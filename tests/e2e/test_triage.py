"""A run that learns garbage: one command finds it, another goes back past it, and the records still prove the run."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.audit import audit
from gptdist.checkpoint.find import LATEST_NAME
from gptdist.cli.main import main
from gptdist.errors import EXIT_USER_ERROR, CheckpointError
from gptdist.telemetry.ledger import LEDGER_NAME, SAVED, line_digest, read_json_lines
from gptdist.train.lock import lock_folder
from gptdist.triage.rewind import plan_rewind, rewind
from tests.support.datasets import GPT2
from tests.support.jobs import train_run
from tests.support.planted import PLANTED, write_planted
from tests.support.ranks import repository, run_ranks
from tests.support.step_folders import rewrite_manifest

END, SPIKE = 38, 35
BAD = {243, 246, 273, 278}
"""Two samples of step 31 and two of step 35, of 8 each; checkpoints are of the steps 10, 20, 30 and the last."""

TOLERANCE = 2e-5
"""Of gradient norms in fp32 whose sums are taken in another order."""


def _tree(folder: Path) -> dict[str, Any]:
    return {
        "name": "run",
        "run_dir": str(folder / "run"),
        "model": GPT2 | {"hidden_dropout": 0.1, "attention_dropout": 0.1},
        "data": {
            "tokenizer": str(folder / "data" / "tokenizer"),
            "sources": [{"path": str(folder / "data" / "words")}],
            "eval_samples": 4,
        },
        "batch": {"global_batch_size": 8, "micro_batch_size": 2},
        "training": {"train_steps": END, "device": "cpu", "collective_timeout_seconds": 60.0},
        "optimizer": {"lr": 3e-3},
        "schedule": {"warmup_steps": 2},
        "guards": {"max_z_score": None},
        "intervals": {"log_steps": 1, "eval_steps": 1000, "save_steps": 10},
        "telemetry": {"tensorboard": False},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a trained run and its data."""
    folder = tmp_path_factory.mktemp("triage")
    write_planted(folder / "data" / "words", _tree(folder), BAD)
    run_ranks(1, train_run, _tree(folder))
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the run's folder, which reads the same data."""
    shutil.copytree(folder / "run", tmp_path / "run")
    return tmp_path / "run"


def _content(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _triage(run: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["triage", str(run), *words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_planted_documents_come_first_with_the_steps_own_gradient(folder: Path, tmp_path: Path) -> None:
    run, page, before = folder / "run", tmp_path / "page.html", _content(folder)
    argv = [sys.executable, "-m", "gptdist.cli.main", "triage", str(run), "--step", str(SPIKE), "--json"]
    done = subprocess.run(
        [*argv, "--html", str(page)], cwd=repository(), capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert _content(folder) == before, "a run is only read"
    found = json.loads(done.stdout)
    samples = found["batch"]["samples"]
    assert {one["sample"] for one in samples[:2]} == {273, 278}
    assert [one["documents"][0]["path"] == PLANTED for one in samples] == [True] * 2 + [False] * 6
    assert all(one["z_scores"]["loss"] > 6.0 for one in samples[:2])
    assert all(one["suspicion"] < 6.0 for one in samples[2:])
    gradients = found["gradients"]
    assert (gradients["weights_step"], gradients["replayed_from"]) == (SPIKE - 1, 30)
    logged = next(row for row in read_json_lines(run / "metrics.jsonl") if row.get("step") == SPIKE)
    assert gradients["batch"]["grad_norm"] == pytest.approx(logged["grad_norm"], rel=TOLERANCE)
    assert gradients["batch"]["loss"] == pytest.approx(logged["loss"], rel=TOLERANCE)
    assert [one["step"] for one in gradients["ordinary"]] == [32, 33, 34]
    ordinary = max(one["by_part"]["layer 0 attention"] for one in gradients["ordinary"])
    assert gradients["batch"]["by_part"]["layer 0 attention"] > 3.0 * ordinary
    assert found["way_back"]["commands"][0] == f"gptdist checkpoint rewind {run} --to 30 --past {SPIKE}"
    written = page.read_text()
    assert written.index(PLANTED) < written.index("good.jsonl, record")
    assert "trained again from the checkpoint at step 30" in written
    assert not any(word in written for word in ("http://", "https://", "<script", "src="))


def _text(run: Path, step: int) -> list[str]:
    from gptdist.triage.text import lines
    from gptdist.triage.triage import Options, triage

    return lines(triage(run, step, Options(with_replay=False, device="cpu"), print), 1)


def test_weights_of_an_older_step_are_said_to_be_that(folder: Path) -> None:
    (said,) = run_ranks(1, _text, folder / "run", 33)
    (line,) = [line for line in said if line.startswith("3.")]
    assert line.endswith(
        "weights are those of the checkpoint at step 30, not those of step 32 that step 33 began with (--no-replay)"
    )
    assert any(line.startswith("layer 1 mlp") for line in said)
    assert any(line.startswith("the trainer logged a gradient norm of") for line in said)
    assert "and 7 samples more, see --samples" in said


def test_without_gradients_and_without_a_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder / "run"
    status, out, err = _triage(run, capsys, "--step", "31", "--no-gradients")
    assert (status, err) == (0, "")
    first = next(line for line in out.splitlines() if line.startswith("    from "))
    assert PLANTED in first
    assert "3. Gradients: not computed\n    --no-gradients\n" in out
    assert f"last good checkpoint: {run}/checkpoints/step_00000030, saved by attempt 1; every file was read" in out
    assert "pass over the 8 samples from there to step 31" in out
    status, out, _ = _triage(run, capsys, "--step", "4")
    assert status == 0
    assert out.count("checkpoints: holds no checkpoint of a step before 4; lower intervals.save_steps") == 2
    assert out.count("| ") == 8, "the batch is shown all the same"


def test_bad_input_is_named(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = folder / "run"
    for words, line in (
        (("--step", "99"), f"{run}: step 99 asked for, the run came to steps 1 … {END}; name one of these"),
        (("--step", "0"), f"{run}: step 0 asked for, the run came to steps 1 … {END}; name one of these"),
        (("--step", "3", "--attempt", "7"), f"{run}: has no attempt 7; name one of 1"),
        (("--step", "3", "--samples", "0"), "--samples: must be at least 1, got 0"),
        (("--step", "3", "--html", "/no/where"), "--html /no/where: the folder '/no' does not exist; make it"),
        (("--step", "3", "--html", str(tmp_path)), f"--html {tmp_path}: is a folder; name a file"),
    ):
        status, out, err = _triage(run, capsys, *words)
        assert (status, out) == (EXIT_USER_ERROR, "")
        assert err.startswith(f"gptdist triage: error: {line}")
    status, _, err = _triage(tmp_path / "none", capsys, "--step", "3")
    assert status == EXIT_USER_ERROR
    assert "no start of a run is recorded here" in err


def test_data_that_is_gone_costs_only_what_needs_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, told in (
        ("words", "words' does not exist; run this from"),
        ("tokenizer", "tokenizer: no such tokenizer"),
    ):
        gone = (folder / "data" / part).rename(folder / "data" / "gone")
        try:
            status, out, err = _triage(folder / "run", capsys, "--step", str(SPIKE))
        finally:
            gone.rename(folder / "data" / part)
        assert status == EXIT_USER_ERROR
        assert f"{folder}/data/{told}" in err.splitlines()[-1]
        assert f">*       {SPIKE}" in out
        assert f"{folder}/data/{told}" in out
        assert "3. Gradients: not computed" in out
        assert "checkpoint rewind" in out


def test_a_rewind_by_hand_passes_the_garbage_over(folder: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["checkpoint", "rewind", str(copy), "--to", "30", "--past", "31"]
    before = _content(copy)
    assert main([*words, "--dry-run"]) == 0
    assert _content(copy) == before
    told = capsys.readouterr().out
    assert told.splitlines() == [
        f"{copy}: goes back from step {END} to step_00000030, and passes over samples 240 to 247",
        f"deletes {copy}/checkpoints/step_000000{END}",
    ]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(told)
    assert (copy / "checkpoints" / LATEST_NAME).read_text() == "step_00000030"
    assert main(["checkpoint", "verify", str(copy)]) == 0
    assert main(["audit", str(copy)]) == 0
    assert "8 passed over by 1 rewinds; none twice, none left out" in capsys.readouterr().out
    assert main(["checkpoint", "rewind", str(copy), "--to", "30"]) == 0, "once more, to what it has written itself"
    assert "reads the same data again" in capsys.readouterr().out
    run_ranks(1, train_run, _tree(folder) | {"run_dir": str(copy)})
    assert main(["audit", str(copy)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"PASS  312 samples up to step {END}: 304 in steps that were taken, 0 in 0 skipped steps, 8 passed over by 1 "
        "rewinds; none twice, none left out"
    )
    losses = {row["step"]: row["loss"] for row in read_json_lines(copy / "metrics.jsonl") if row["kind"] == "train"}
    assert losses[31] < losses[34], "the garbage that was in step 31 was not read, that of 35 is now in 34"
    status, out, _ = _triage(copy, capsys, "--step", "31", "--attempt", "1", "--no-gradients")
    assert status == 0
    assert f"the run went back by hand from step {END} to 30, and passed over samples 240 to 247" in out
    assert "no need to go back: step 31 of attempt 1 was undone" in out


def test_steps_that_were_skipped_before_count_no_more_but_rewinds_and_what_is_usual_do(copy: Path) -> None:
    """Else the first skipped step behind it could be one too many; other attempts would go back without an end."""
    step = copy / "checkpoints" / "step_00000030"
    tree = json.loads((step / "manifest.json").read_text())
    usual = tree["progress"]["guards"]["losses"]
    assert usual
    tree["progress"]["guards"] |= {"skipped_steps": [27, 29], "rewinds": 1}
    rewrite_manifest(step, tree)
    rewind(plan_rewind(copy, 30, 31))
    guards = json.loads((step / "manifest.json").read_text())["progress"]["guards"]
    assert (guards["skipped_steps"], guards["rewinds"], guards["losses"]) == ([], 1, usual)


def test_a_rewind_that_breaks_off_leaves_a_run_that_goes_on(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Path) -> None:
        raise OSError(28, "No space left on device")

    plan = plan_rewind(copy, 30, 31)
    with monkeypatch.context() as patched:
        patched.setattr("gptdist.triage.rewind.swap_in", full)
        with pytest.raises(CheckpointError, match=r"step_00000030: cannot be written anew \(.*No space"):
            rewind(plan)
    assert not audit(copy).problems
    assert not list((copy / "checkpoints").glob(".partial*"))


def test_what_cannot_be_gone_back_to_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert main(["checkpoint", "rewind", str(copy), *words]) == EXIT_USER_ERROR
        return capsys.readouterr().err

    before = _content(copy)
    assert f"go back to another one: there are {END}, 30, 20, 10" in refused("--to", "25")
    assert f"--past 20: the run has come to step {END}, and goes back to 30; name a step from 30 to {END}" in refused(
        "--to", "30", "--past", "20"
    )
    with lock_folder(copy):
        assert "another job is training here" in refused("--to", "30", "--past", "31")
    assert {path: one for path, one in _content(copy).items() if not path.endswith(".lock")} == {
        path: one for path, one in before.items() if not path.endswith(".lock")
    }
    ledger = copy / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"consumed_samples": 240', '"consumed_samples": 248', 1))
    assert "a rewind needs records that 'gptdist audit' passes, mend them first" in refused("--to", "30")


Event = dict[str, Any]


def _retold(run: Path, change: Callable[[Event], Event | None]) -> None:
    """Have a ledger as it would be if each event were what ``change`` makes of it, its digests included."""
    path, digest, lines = run / LEDGER_NAME, "", []
    for event in read_json_lines(path):
        changed = change({name: value for name, value in event.items() if name != "digest"})
        if changed is not None:
            digest = line_digest(digest, json.dumps(changed).encode())
            lines.append(json.dumps(changed | {"digest": digest}))
    path.write_text("".join(f"{line}\n" for line in lines))
    assert not audit(run).problems


def _configured(**sections: Any) -> Callable[[Event], Event]:
    def changed(event: Event) -> Event:
        return event | {"config": event["config"] | sections} if event["event"] == "start" else event

    return changed


def test_a_store_with_later_steps_allows_only_what_a_resume_will_not_undo(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _retold(copy, _configured(checkpoints={"remote": {"url": "s3://bucket/runs"}}))
    words = ["checkpoint", "rewind", str(copy), "--to", "30", "--dry-run"]
    for past in ((), ("--past", str(END - 1))):
        assert main([*words, *past]) == EXIT_USER_ERROR
        said = capsys.readouterr().err
        assert "s3://bucket/runs: holds copies of later steps, which a resume would fetch again; pass over all " in said
        assert f"(--past {END})" in said
    assert main([*words, "--past", str(END)]) == 0


def test_a_checkpoint_that_the_weights_of_now_do_not_come_from_is_refused(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = copy / "checkpoints" / f"step_000000{END}"
    shutil.copytree(last, tmp_path / "aside")
    assert main(["checkpoint", "rewind", str(copy), "--to", "30", "--past", "31"]) == 0
    shutil.copytree(tmp_path / "aside", last)
    assert main(["checkpoint", "rewind", str(copy), "--to", str(END)]) == EXIT_USER_ERROR
    assert f"{last}: the weights of now do not come from it; go back to another one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_configured(seed=5), "the order of samples has changed since (seed: 1234 → 5); go back to a later one"),
        (
            lambda event: None if (event["event"], event.get("step")) == (SAVED, 20) else event,
            "the ledger has no record of it; go back to an older one",
        ),
    ],
    ids=["order", "record"],
)
def test_a_checkpoint_whose_place_in_the_data_is_not_known_is_refused(
    change: Callable[[Event], Event | None], said: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _retold(copy, change)
    assert main(["checkpoint", "rewind", str(copy), "--to", "20"]) == EXIT_USER_ERROR
    assert f"{copy}/checkpoints/step_00000020: {said}" in capsys.readouterr().err
