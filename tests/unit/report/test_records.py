"""What a page shows of a run follows from its records, damaged and growing ones too."""

import fcntl
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptdist.errors import ConfigError
from gptdist.report.attempts import FRESH_SECONDS, is_training, read_ledger
from gptdist.report.charts import charts_of
from gptdist.report.columns import MetricsFile
from gptdist.report.gather import RunRecords, open_runs, report_data
from gptdist.report.thin import thinned
from gptdist.telemetry.ledger import Ledger
from tests.unit.report.made_run import append, make_run, train_row


def shown(*folders: Path) -> dict[str, Any]:
    return report_data(open_runs(list(folders), in_full=False, device=None))


def facts(run: dict[str, Any]) -> dict[str, Any]:
    return {row["label"]: row.get("value", row.get("time")) for row in run["summary"]}


def test_end_values_are_those_of_what_was_kept(tmp_path: Path) -> None:
    (run,) = shown(make_run(tmp_path))["runs"]
    found = facts(run)
    assert found["state"] == "done"
    assert found["step"].startswith("20 of ")
    assert found["tokens"] == "10,240"
    assert found["loss"] == "4.8000 nats/token (step 20)"
    assert found["bits per byte"] == "2.5000 bits/byte (step 20)"
    assert found["throughput (median)"] == "1,500 tokens/s", "ten kept lines of each attempt; four more were lost"
    assert found["attempts"] == "2; 4 steps lost and done again"
    assert found["skipped steps, rewinds"] == "1, 0"


def test_attempts_tell_where_they_went_on_and_what_changed(tmp_path: Path) -> None:
    (run,) = shown(make_run(tmp_path))["runs"]
    first, second = run["attempts"]
    assert (first["first_step"], first["last_step"], first["lost_steps"], first["how"]) == (
        0,
        14,
        4,
        "killed or failed",
    )
    assert first["end"] - first["begin"] == pytest.approx(14 * 0.5, abs=0.6), "its lines say how long it took at least"
    assert not first["is_end_known"]
    assert (second["from_attempt"], second["how"], second["kind"]) == (1, "done", "done")
    assert [line.partition(":")[0] for line in second["changed"]] == ["seed"]


def test_a_skipped_step_names_the_command_that_looks_into_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (run,) = shown(folder)["runs"]
    (mark,) = [mark for mark in run["marks"] if mark["kind"] == "skip"]
    assert mark["command"] == f"gptdist triage {folder} --step 15"
    assert "loss 9, 44 standard deviations above 4.8" in mark["text"]


def test_a_spike_that_no_guard_refused_is_found(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    rows = [train_row(step, 2, loss=4.8 + 0.01 * (step % 3)) for step in range(21, 101)]
    rows[70]["loss"] = 7.0
    append(folder, *rows)
    (run,) = shown(folder)["runs"]
    assert [mark["step"] for mark in run["marks"] if mark["kind"] == "spike"] == [91]


def test_lost_steps_are_curves_of_their_own_and_tokens_of_validation_follow_from_its_step(tmp_path: Path) -> None:
    (run,) = shown(make_run(tmp_path))["runs"]
    kept, lost, second = run["curves"]["train/loss"]
    assert (kept["s"], kept["lost"], kept["attempt"]) == (list(range(1, 11)), False, 1)
    assert (lost["s"], lost["lost"]) == ([11, 12, 13, 14], True)
    assert (second["s"][0], second["t"][0]) == (11, 512 * 11)
    assert run["curves"]["validation/validation_loss"][0]["t"] == [512 * 20]
    (first, *_) = run["curves"]["stack/time"]
    assert np.sum([part[0] for part in first["parts"]]) == pytest.approx(0.5)


def test_thinning_keeps_the_ends_and_every_extreme() -> None:
    values = np.sin(np.arange(100_000) / 500)
    values[[0, 34_567, 70_001, 99_999]] = 0.5, 99.0, -99.0, 0.25
    kept, blocks = thinned(values, 400)
    assert {0, 34_567, 70_001, 99_999} <= set(kept.tolist())
    assert len(kept) <= 402
    assert [begin for begin, _ in blocks] == sorted({0, *(end for _, end in blocks[:-1])}), "blocks leave nothing out"
    assert thinned(values[:400], 400)[1] == []


def test_a_long_run_stays_small_and_keeps_its_highest_loss(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    append(
        folder,
        *(train_row(step, 2, loss=50.0 if step == 15_000 else 4.0 + step % 7 / 10) for step in range(21, 20_000)),
    )
    data = shown(folder)
    (run,) = data["runs"]
    longest = max(run["curves"]["train/loss"], key=lambda one: one["lines"])
    assert 1000 < len(longest["y"]) < 1300
    assert longest["y"][longest["s"].index(15_000)] == 50.0
    assert np.mean(longest["my"]) == pytest.approx(4.3, abs=0.02), "means that smoothing takes, not of extremes"
    assert len(json.dumps(data)) < 700_000


def test_only_what_is_new_is_read_and_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    assert not metrics.update()
    append(tmp_path, train_row(1), train_row(2))
    assert metrics.update()
    assert not metrics.update()
    with path.open("a") as file:
        file.write('{"kind": "train", "attempt": 1, "st')
    assert not metrics.update()
    assert metrics.has_open_line
    with path.open("a") as file:
        file.write('ep": 3, "loss": 1.5, "new": 7}\n')
    assert metrics.update()
    assert metrics.tables["train"].column("step").tolist() == [1, 2, 3]
    assert np.isnan(metrics.tables["train"].column("new")[:2]).all()
    path.write_text(json.dumps(train_row(1)) + "\n")
    assert metrics.update()
    assert metrics.tables["train"].num_rows == 1


def test_damaged_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"kind": "train"}\nnonsense\n\n{"kind": "train", "attempt": 2, "step": "x"}\n')
        file.write(
            '{"kind": "train", "attempt": 2, "step": 21, "loss": NaN, "grad_norm": [1], "lr": "a", "mfu": 1e999}\n'
        )
        file.write('{"kind": "train", "att')
    with (folder / "ledger.jsonl").open("a") as file:
        file.write('{"event": "don')
    (run,) = shown(folder)["runs"]
    assert any("4 lines are no records" in note for note in run["notes"])
    assert any("the last line has no end" in note for note in run["notes"])
    assert any("ledger.jsonl:6: is no whole line" in note for note in run["notes"])
    assert facts(run)["loss"] == "4.8000 nats/token (step 20)"


def test_runs_with_little_in_them(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder / "metrics.jsonl").write_text("")
    for name in ("samples.jsonl", "config.yaml"):
        (folder / name).unlink()
    (run,) = shown(folder)["runs"]
    assert run["checkpoints"][0]["state"] == "not there"
    assert "no line of training yet" in run["notes"][0]
    assert "no attempt has more than" in run["plan"]["problem"]
    (folder / "ledger.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"run: holds no ledger, no metrics and no checkpoint; name the folder"):
        shown(folder)
    with pytest.raises(ConfigError) as found:
        open_runs([folder, tmp_path / "none", tmp_path / "none"], in_full=False, device=None)
    assert len(found.value.problems) == 4


def test_a_run_is_running_while_its_lock_is_held(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    Ledger(folder).write("start", step=0, hosts=[])
    ledger, now = read_ledger(folder), time.time()
    assert is_training(folder, ledger, now - 1, now), "elsewhere, and it wrote a second ago"
    assert not is_training(folder, ledger, now - FRESH_SECONDS - 1, now)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_training(folder, ledger, 0.0, now)
        assert RunRecords(folder).data(100)["state"] == "running"
    assert not is_training(folder, ledger, 0.0, now)
    Ledger(folder).write("done", step=1)
    assert not is_training(folder, read_ledger(folder), now, now)


def test_runs_side_by_side_differ_by_keys_of_their_configs(tmp_path: Path) -> None:
    data = shown(make_run(tmp_path / "a"), make_run(tmp_path / "b", optimizer={"lr": 0.5}))
    rows = {row[0]: row[1:] for row in data["differences"]}
    assert rows["optimizer.lr"][1] == "0.5"
    assert "seed" not in rows
    assert {len(run["summary"]) for run in data["runs"]} == {len(data["runs"][0]["summary"])}


def test_every_number_has_a_picture_and_settings_only_if_they_change() -> None:
    names = ["train/loss", "train/kl", "train/lr", "train/seq_length", "train/made_up_seconds", "validation/loss_wiki"]
    found = {chart.key: chart for chart in charts_of(names, constant=["train/seq_length"])}
    assert {key for chart in found.values() for key, _ in chart.lines} == set(names) - {"train/seq_length"}
    assert found["train_made_up_seconds"].unit == "seconds"
    assert found["loss_of"].lines == (("validation/loss_wiki", "wiki"),)
    assert any(chart.key == "train_seq_length" for chart in charts_of(names))


def test_the_plan_stands_beside_medians(tmp_path: Path) -> None:
    (run,) = shown(make_run(tmp_path))["runs"]
    rows = {row[0]: row[1:] for row in run["plan"]["rows"]}
    assert rows["forward and backward"][0] == 0.1
    assert rows["memory of a rank"][0] == 0.5
    assert rows["step"][1] > 0
    gpu = make_run(tmp_path / "gpu")
    text = (gpu / "metrics.jsonl").read_text().replace('"communication_seconds": 0.1', '"communication_seconds": null')
    (gpu / "metrics.jsonl").write_text(text)
    assert "name it with --device" in shown(gpu)["runs"][0]["plan"]["problem"]
