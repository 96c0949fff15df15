"""An audit proves from a run's records that no sample came twice or never, and names the place where it cannot."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gptdist.checkpoint.audit import audit
from gptdist.checkpoint.audit_report import report
from gptdist.cli.main import main
from gptdist.errors import CheckpointError
from gptdist.telemetry.ledger import LEDGER_NAME, Ledger
from gptdist.telemetry.metrics import METRICS_NAME
from tests.support.datasets import write_dataset
from tests.support.made_ledger import MadeRun


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed behind step 15; from 10 a skipped step and a rewind from 20 to 15; then from there to 30."""
    made = MadeRun(tmp_path_factory.mktemp("audit"))
    first = made.start(0, 0, None)
    made.logged(1, 1, 8)
    made.saved(first, 10, 80)
    made.logged(1, 15, 120)
    second = made.start(10, 80, 1)
    second.write("skip", step=12, first_sample=88, last_sample=95)
    made.saved(second, 15, 120)
    second.write("skip", step=19, first_sample=144, last_sample=151)
    made.logged(2, 20, 160)
    second.write("rewind", step=20, to_step=15, first_sample=120, last_sample=159, rewinds=1)
    second.attempt += 1
    made.write_start(second, 15, 160, 2)
    made.saved(second, 15, 160)
    made.logged(3, 30, 280)
    second.write("done", step=30)
    return made.run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def _verdict(run: Path) -> str:
    return report(audit(run))[-1]


def test_every_sample_is_accounted_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.split()[0].isdigit()]
    assert [row[:3] for row in rows] == [["1", "1-15", "0-119"], ["2", "11-20", "80-159"], ["3", "16-30", "160-279"]]
    assert "11-15        killed or failed" in lines[1], "lost steps of the killed attempt"
    assert "step 10 of attempt 1   16-20        rewind from step 20 to 15" in lines[2]
    assert "skipped steps: 12" in lines[3], "step 19 was undone"
    assert lines[5].strip() == "passed over samples 120-159, by the rewind before"
    assert lines[-1] == (
        "PASS  280 samples up to step 30: 232 in steps that were taken, 8 in 1 skipped steps, 40 passed over by 1 "
        "rewinds; none twice, none left out"
    )


def _edit(pattern: str, to: str, line: int) -> Callable[[list[str]], list[str]]:
    def edited(lines: list[str]) -> list[str]:
        assert pattern in lines[line - 1]
        return [text.replace(pattern, to) if number == line else text for number, text in enumerate(lines, 1)]

    return edited


EDITS = [
    (_edit('"consumed_samples": 80', '"consumed_samples": 81', 2), "2: does not follow from the line before"),
    (_edit('"last_sample": 95', '"last_sample":  95', 4), "4: does not follow"),
    (_edit('"step": 30', '"step": 31', 10), "10: does not follow"),
    (lambda lines: lines[:3] + lines[4:], "4: does not follow"),
    (lambda lines: [*lines[:4], lines[4], *lines[4:]], "6: does not follow"),
    (lambda lines: lines[1:], "1: does not follow"),
    (lambda lines: [*lines[:9], lines[9][:40]], "10: is no whole line; a crash tore it"),
    (lambda lines: [*lines[:4], lines[4][:30], *lines[5:]], "5: is no whole line"),
    (lambda lines: [*lines, '{"event": "done", "attempt": 3, "step": 30}'], "11: does not follow"),
]


@pytest.mark.parametrize(("edit", "message"), EDITS, ids=range(len(EDITS)))
def test_an_edited_ledger_fails_with_the_line(run: Path, edit, message: str) -> None:
    path = run / LEDGER_NAME
    path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")
    assert main(["audit", str(run)]) == 1
    assert f"{path}:{message}" in _verdict(run)
    assert _verdict(run).startswith("FAIL")


def test_a_torn_line_keeps_to_itself_when_the_run_goes_on(run: Path) -> None:
    path = run / LEDGER_NAME
    path.write_text(path.read_text()[:-30])
    ledger = Ledger(run)
    ledger.write("stopped", step=30)
    lines = path.read_text().splitlines()
    assert len(lines) == 11
    assert [json.loads(line)["event"] for line in lines[10:]] == ["stopped"]
    assert f"{path}:10: is no whole line" in _verdict(run)


def test_lines_lost_from_the_end_are_told_by_the_metrics(run: Path) -> None:
    path = run / LEDGER_NAME
    path.write_text("\n".join(path.read_text().splitlines()[:7]) + "\n")
    assert f"{run / METRICS_NAME}: has steps of attempt 3, of which the ledger has no start" in _verdict(run)
    path.unlink()
    assert "no start of a run is recorded here" in _verdict(run)
    with pytest.raises(CheckpointError, match="holds no ledger, no metrics and no checkpoint"):
        audit(run / "nowhere")
    assert main(["audit", str(run / "nowhere")]) == 2


def _begun(tmp_path: Path) -> tuple[MadeRun, Ledger]:
    made = MadeRun(tmp_path)
    ledger = made.start(0, 0, None)
    made.saved(ledger, 10, 80)
    made.logged(1, 15, 120)
    return made, ledger


STARTS = [
    ((10, 80, 1), {}, "PASS  80 samples up to step 10"),
    (
        (10, 88, 1),
        {},
        "attempt 2: goes on at sample 88 from step 10 of attempt 1, which ended with sample 79; samples 80 "
        "to 87 were left out",
    ),
    ((10, 72, 1), {}, "samples 72 to 79 were seen twice"),
    ((10, 80, None), {}, "goes on from step 10, by the ledger a checkpoint of none that the ledger has"),
    ((10, 80, 7), {}, "a checkpoint of attempt 7, which it lacks"),
    ((40, 320, 1), {}, "attempt 1: came to step 15, and step 40 was gone on from"),
    ((0, 8, None), {}, "begins with sample 8 at step 0; samples 0 to 7 were left out"),
    ((0, 0, None), {}, "PASS  0 samples up to step 0"),
    (
        (10, 80, 1),
        {"seed": 7},
        "another order of samples than attempt 1 (seed: 1234 → 7), so windows come twice or never",
    ),
    ((10, 80, 1), {"batch": {"global_batch_size": 16}}, "PASS  80 samples"),
    ((10, 80, 1), {"data": {"stages": [{"from_samples": 80, "weights": {"code": 1.0}}]}}, "PASS  80 samples"),
    ((10, 80, 1), {"data": {"stages": [{"from_samples": 8, "weights": {"code": 1.0}}]}}, "data.stages: [] → [{"),
]


@pytest.mark.parametrize(("begin", "changes", "message"), STARTS, ids=range(len(STARTS)))
def test_where_an_attempt_begins(tmp_path: Path, begin, changes, message: str) -> None:
    made, _ = _begun(tmp_path)
    made.start(*begin, **changes)
    assert message in _verdict(made.run)
    assert (not audit(made.run).problems) == message.startswith("PASS")


def test_a_changed_key_is_named(tmp_path: Path) -> None:
    made, _ = _begun(tmp_path)
    made.start(10, 80, 1, batch={"global_batch_size": 16})
    assert any("changed: batch.global_batch_size: 8 → 16" in line for line in report(audit(made.run)))


def test_an_unrecorded_checkpoint_is_believed_of_a_killed_attempt_only(tmp_path: Path) -> None:
    made, ledger = _begun(tmp_path)
    made.start(15, 120, 1)
    assert _verdict(made.run).startswith("PASS  120 samples up to step 15")
    ended = MadeRun(tmp_path / "ended")
    ledger = ended.start(0, 0, None)
    ended.saved(ledger, 10, 80)
    ledger.write("stopped", step=20)
    ended.start(15, 120, 1)
    assert "goes on from step 15 of attempt 1, of which no checkpoint is recorded" in _verdict(ended.run)


@pytest.mark.parametrize("has_metrics", [True, False])
def test_of_an_attempt_elsewhere_only_the_ledger_came(tmp_path: Path, *, has_metrics: bool) -> None:
    """Its second checkpoint was on the disk, and was gone on from, before the ledger could have a line of it."""
    made = MadeRun(tmp_path)
    every = {"save_steps": 10, "log_steps": 1}
    made.saved(made.start(0, 0, None, intervals=every), 10, 80)
    made.saved(made.start(20, 160, 1, intervals=every), 30, 240)
    made.start(30, 240, 2, intervals=every)
    if has_metrics:
        made.logged(3, 31, 248)
    assert _verdict(made.run).startswith("PASS")
    made.start(60, 480, 2, intervals=every)
    assert "attempt 2: came to step 30, and step 60 was gone on from" in _verdict(made.run)


def test_records_that_contradict_the_schedule_are_named(tmp_path: Path) -> None:
    made, ledger = _begun(tmp_path)
    made.logged(1, 20, 168)
    made.saved(ledger, 21, 999)
    ledger.write("skip", step=22, first_sample=0, last_sample=7)
    ledger.write("rewind", step=23, to_step=10, first_sample=80, last_sample=190, rewinds=1)
    problems = audit(made.run).problems
    for wanted in (
        "168 samples were consumed at step 20 of attempt 1, by its schedule it is 160",
        "ledger.jsonl:3: 999 samples were consumed at step 21",
        "ledger.jsonl:4: skipped step 22 had samples 0 to 7, by the schedule of attempt 1 it has 168 to 175",
        "ledger.jsonl:5: 191 samples were consumed at step 23",
    ):
        assert any(wanted in problem for problem in problems), problems


def test_a_checkpoint_that_a_rewind_removed_cannot_be_gone_on_from(tmp_path: Path) -> None:
    made, ledger = _begun(tmp_path)
    made.saved(ledger, 20, 160)
    ledger.write("rewind", step=23, to_step=10, first_sample=80, last_sample=183, rewinds=1)
    made.start(20, 160, 1)
    assert "which attempt 1 had removed by its rewind to step 10" in _verdict(made.run)


def test_a_kill_within_a_rewind_undoes_it(tmp_path: Path) -> None:
    made, ledger = _begun(tmp_path)
    ledger.write("rewind", step=23, to_step=10, first_sample=80, last_sample=183, rewinds=1)
    made.start(10, 80, 1)
    assert _verdict(made.run).startswith("PASS  80 samples up to step 10")


def test_steps_behind_the_end_are_named(tmp_path: Path) -> None:
    made, ledger = _begun(tmp_path)
    ledger.write("stopped", step=12)
    assert "ledger.jsonl:3: attempt 1 ends with step 12, but step 15 of it is recorded" in _verdict(made.run)


def test_checkpoints_are_evidence(tmp_path: Path) -> None:
    made, _ = _begun(tmp_path)
    made.save(18, 1)
    assert _verdict(made.run).startswith("PASS  144 samples up to step 18"), "it came further than its records"
    made.save(17, 1, consumed=140)
    assert "step_00000017: 140 samples were consumed at step 17 of attempt 1, by its schedule it is 136" in _verdict(
        made.run
    )
    shutil.rmtree(made.run / "checkpoints" / "step_00000017")
    made.save(19, 2)
    assert "step_00000019: attempt 2 saved it, of which the ledger has no start" in _verdict(made.run)


def test_a_checkpoint_behind_the_recorded_end_is_named(tmp_path: Path) -> None:
    made, ledger = _begun(tmp_path)
    ledger.write("stopped", step=15)
    made.save(18, 1)
    assert "ledger.jsonl:3: attempt 1 ends with step 15, but it saved step_00000018" in _verdict(made.run)


def test_other_data_and_a_second_start_are_named(tmp_path: Path) -> None:
    made, _ = _begun(tmp_path)
    other = write_dataset(tmp_path / "other" / "prose", seed=5)
    sources = [{"path": str(other), "weight": 0.7}, {"path": str(tmp_path / "data" / "code"), "weight": 0.3}]
    ledger = made.start(10, 80, 1, data={"sources": sources})
    problems = audit(made.run).problems
    assert any("data source 'prose' has content" in problem for problem in problems), problems
    made.write_start(ledger, 10, 80, 1)
    problems = audit(made.run).problems
    assert any("ledger.jsonl:4: attempt 2 starts once more" in problem for problem in problems), problems
