"""A trace names the documents of the very tokens that a step read, over attempts, batch sizes and layouts."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gptdist.cli.main import main
from gptdist.config.run import RunConfig
from gptdist.data.attempts import (
    START,
    attempt_of_sample,
    attempt_of_step,
    read_attempts,
    start_facts,
)
from gptdist.data.provenance import Provenance, ProvenanceWriter
from gptdist.data.sources import TrainingData
from gptdist.data.trace import open_traced_data, trace_samples
from gptdist.errors import ConfigError, DataError
from gptdist.mesh.layout import Layout
from gptdist.telemetry.ledger import LEDGER_NAME, Ledger, append_json_line
from gptdist.telemetry.metrics import Metrics
from tests.support.datasets import run_tree, write_dataset
from tests.support.traced import Documents, tokens_of, write_traced_sources


def _tree(folder: Path, **changes: Any) -> dict[str, Any]:
    return run_tree(folder, **{"training": {"train_steps": 100}, "intervals": {"log_steps": 10}} | changes)


def _attempt(
    tree: dict[str, Any], *, step: int, consumed: int, logged: int | None = None, end: tuple[str, int] | None = None
) -> None:
    """Record what a start of the run ``tree`` records, and what follows from its going to step ``logged``."""
    config = RunConfig.from_tree(tree)
    data, ledger = TrainingData(config), Ledger(config.folder)
    layout = Layout.of(config.parallel, config.launch.ranks_per_node)
    facts = start_facts(
        config.tree(), data.fingerprints(), step=step, consumed_samples=consumed, layout=layout, shares={"prose": 0.7}
    )
    ledger.write(START, **facts)
    if logged is not None:
        with Metrics(config.folder, ledger.attempt, train_steps=9, first_step=step, tensorboard=False) as metrics:
            metrics.log("train", logged, {"loss": 1.0})
    if end is not None:
        ledger.write(end[0], step=end[1])


@pytest.fixture
def documents(tmp_path: Path) -> Documents:
    return write_traced_sources(tmp_path / "data")


@pytest.fixture
def run(tmp_path: Path, documents: Documents) -> Path:
    """A run of three attempts: killed near step 30; from 20 with twice the batch, stopped at 50; then running."""
    _attempt(_tree(tmp_path), step=0, consumed=0, logged=30)
    twice = _tree(
        tmp_path,
        batch={"global_batch_size": 16},
        launch={"ranks_per_node": 4},
        parallel={"tensor_parallel_size": 2},
    )
    _attempt(twice, step=20, consumed=160, logged=40, end=("stopped", 50))
    _attempt(_tree(tmp_path), step=50, consumed=160 + 30 * 16, logged=60)
    return tmp_path / "run"


def test_samples_equal_the_rows_of_the_training_data(tmp_path: Path, documents: Documents, run: Path) -> None:
    attempt = read_attempts(run)[0]
    data = open_traced_data(attempt.config, attempt.data_fingerprints)
    samples = list(range(300))
    rows = TrainingData(RunConfig.from_tree(_tree(tmp_path))).rows(0, 300)
    traced = trace_samples(data, samples)
    assert {one.source for one in traced} == {"prose", "code"}
    assert max(one.epoch for one in traced) > 0, "the second epoch is traced as well"
    assert max(len(one.documents) for one in traced) > 2
    assert any(one.documents[0].document_token for one in traced), "one that begins within a document"
    for one, row in zip(traced, rows, strict=True):
        assert tokens_of(one, documents) == row.tolist()
        assert one.tokens == len(row) == 33


@pytest.mark.parametrize(
    ("step", "number", "first", "size"),
    [
        (1, 1, 0, 8),
        (20, 1, 152, 8),
        (21, 2, 160, 16),  # the first attempt came by here too, but its work was lost
        (50, 2, 160 + 29 * 16, 16),
        (51, 3, 640, 8),
        (70, 3, 640 + 19 * 8, 8),
    ],
)
def test_a_step_belongs_to_the_newest_attempt_that_did_it(run: Path, step: int, number: int, first: int, size: int):
    attempt = attempt_of_step(run, read_attempts(run), step)
    assert attempt.number == number
    assert attempt.samples_of_step(step) == list(range(first, first + size))
    for sample in (first, first + size - 1):
        assert attempt.step_of_sample(sample) == step
        assert attempt_of_sample(run, read_attempts(run), sample).number == number


def test_steps_of_a_ramp_grow_from_where_the_attempt_began(tmp_path: Path, documents: Documents) -> None:
    """Of a run that stands at sample 20 after 3 steps, whatever it did before."""
    ramp = [{"until_samples": 30, "global_batch_size": 4}]
    tree = _tree(tmp_path, batch={"global_batch_size": 8, "ramp": ramp}, launch={"ranks_per_node": 2})
    _attempt(tree, step=3, consumed=20, logged=10)
    (attempt,) = read_attempts(tmp_path / "run")
    steps = {4: (20, 24), 5: (24, 28), 6: (28, 32), 7: (32, 40), 8: (40, 48)}
    for step, (first, end) in steps.items():
        assert attempt.samples_of_step(step) == list(range(first, end))
        assert {attempt.step_of_sample(sample) for sample in range(first, end)} == {step}
        assert sorted(attempt.samples_of_rank(step, 0) + attempt.samples_of_rank(step, 1)) == list(range(first, end))
    assert attempt.samples_of_rank(6, 1) == [30, 31]
    assert attempt.samples_of_rank(7, 1) == [34, 35, 38, 39]
    assert attempt.end_sample == 32 + 14 * 8


def test_how_far_attempts_came(run: Path) -> None:
    """A killed one may have begun any step up to the next that would have been logged; a stopped one has not."""
    assert [(one.recorded_step, one.last_step) for one in read_attempts(run)] == [(30, 40), (50, 50), (60, 70)]


def test_an_attempt_without_a_record_did_its_first_step_at_most(tmp_path: Path, documents: Documents) -> None:
    _attempt(_tree(tmp_path), step=0, consumed=0)
    assert read_attempts(tmp_path / "run")[0].last_step == 1


def test_a_named_attempt_did_the_same_step_on_other_samples(run: Path) -> None:
    attempts = read_attempts(run)
    assert attempt_of_step(run, attempts, 25, 1).samples_of_step(25) == list(range(192, 200))
    assert attempt_of_step(run, attempts, 25).samples_of_step(25) == list(range(224, 240))
    assert attempt_of_sample(run, attempts, 230, 1).step_of_sample(230) == 29
    with pytest.raises(DataError, match=r"run: step 60 asked for, attempt 1 came to steps 1 … 40; name one of these"):
        attempt_of_step(run, attempts, 60, 1)
    with pytest.raises(DataError, match=r"run: has no attempt 7; name one of 1, 2, 3"):
        attempt_of_step(run, attempts, 60, 7)


@pytest.mark.parametrize("step", [-3, 0, 71])
def test_a_step_that_the_run_never_did(run: Path, step: int) -> None:
    with pytest.raises(DataError, match=rf"run: step {step} asked for, the run came to steps 1 … 70; name one of"):
        attempt_of_step(run, read_attempts(run), step)


def test_a_sample_that_the_run_never_read(run: Path) -> None:
    with pytest.raises(DataError, match=r"sample 800 asked for, the run came to samples 0 … 799; name one of these"):
        attempt_of_sample(run, read_attempts(run), 800)


def test_an_attempt_that_did_nothing(tmp_path: Path, documents: Documents) -> None:
    _attempt(_tree(tmp_path), step=100, consumed=800, end=("done", 100))
    with pytest.raises(DataError, match=r"step 100 asked for, the run did no steps"):
        attempt_of_step(tmp_path / "run", read_attempts(tmp_path / "run"), 100)


def test_the_ranks_of_a_step_share_its_batch_out(run: Path) -> None:
    first, second, _ = read_attempts(run)
    assert first.samples_of_rank(3, 0) == first.samples_of_step(3)
    by_rank = [second.samples_of_rank(21, rank) for rank in range(4)]
    assert by_rank[0] == by_rank[1], "two ranks of a tensor-parallel pair read the same"
    assert by_rank[0] == [160, 161, 164, 165, 168, 169, 172, 173]
    assert sorted(by_rank[0] + by_rank[2]) == second.samples_of_step(21)
    for rank in (-1, 4):
        with pytest.raises(DataError, match=rf"rank {rank}: attempt 2 had 4 ranks; name one of 0 … 3"):
            second.samples_of_rank(21, rank)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ledger.jsonl: no start of a run is recorded here; name the folder of a run"):
        read_attempts(tmp_path)


def test_attempts_of_an_older_version_are_left_out(tmp_path: Path, documents: Documents) -> None:
    append_json_line(_made(tmp_path / "run") / LEDGER_NAME, {"event": "start", "attempt": 1, "step": 0})
    with pytest.raises(DataError, match=r"no attempt noted its config, so an older gptdist trained it; resume it"):
        read_attempts(tmp_path / "run")
    _attempt(_tree(tmp_path), step=10, consumed=80)
    assert [one.number for one in read_attempts(tmp_path / "run")] == [2]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_config_of_another_version_is_named(tmp_path: Path, documents: Documents) -> None:
    _attempt(_tree(tmp_path), step=0, consumed=0)
    ledger = tmp_path / "run" / LEDGER_NAME
    ledger.write_text(ledger.read_text().replace('"seq_length"', '"sequence"'))
    with pytest.raises(ConfigError, match=r"ledger.jsonl: attempt 1: model.sequence: unknown key"):
        read_attempts(tmp_path / "run")


def test_data_that_is_gone_or_changed(tmp_path: Path, run: Path) -> None:
    attempt = read_attempts(run)[0]
    shutil.move(tmp_path / "data" / "code", tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"sources\[1\].path: folder '.*code' does not exist; run this from the fold"):
        open_traced_data(attempt.config, attempt.data_fingerprints)
    write_dataset(tmp_path / "data" / "code", seed=7)
    with pytest.raises(DataError, match=r"code: its content is \w{12}, the run read \w{12} under this name; put the"):
        open_traced_data(attempt.config, attempt.data_fingerprints)


def test_the_command_prints_documents_and_json(run: Path, documents: Documents, capsys) -> None:
    assert main(["data", "trace", "--run", str(run), "--step", "21"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == f"{run}: step 21 of attempt 2; 16 samples of all ranks"
    assert lines[0].startswith("sample 160: ")
    assert sum(line.startswith("sample ") for line in lines) == 16
    assert main(["data", "trace", "--run", str(run), "--step", "21", "--rank", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["attempt"], found["rank"], found["is_recorded"]) == (21, 2, 3, True)
    assert [one["sample"] for one in found["samples"]] == [162, 163, 166, 167, 170, 171, 174, 175]
    assert all(sum(part["tokens"] for part in one["documents"]) == 33 for one in found["samples"])


def test_the_command_traces_one_sample(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "trace", "--run", str(run), "--sample", "161"]) == 0
    head, sample, *parts = capsys.readouterr().out.splitlines()
    assert head == f"{run}: step 21 of attempt 2; one sample of it"
    assert sample.startswith("sample 161: ")
    assert sum(int(part.split()[0]) for part in parts) == 33
    assert "/" in parts[0].split(": ")[1].split(";")[0]
    assert main(["data", "trace", "--run", str(run), "--sample", "161", "--rank", "0"]) == 2
    assert "error: --rank 0: goes with --step only" in capsys.readouterr().err


def test_the_command_says_where_in_a_file_and_of_which_page(tmp_path: Path, run: Path, documents, capsys) -> None:
    for shard, content in enumerate(documents["prose"]):
        writer = ProvenanceWriter(tmp_path / "data" / "prose", f"train-{shard:05d}")
        url = "https://a.example/"
        writer.append_rows(
            [
                Provenance("crawl.warc.gz", d, f"{url}{d}", 10, len(ids), f"{d:032x}", 1000 + d, "de", d % 2)
                for d, ids in enumerate(content)
            ]
        )
        writer.close()
    main(["data", "trace", "--run", str(run), "--step", "21", "--json"])
    samples = json.loads(capsys.readouterr().out)["samples"]
    part = next(one for one in samples if one["source"] == "prose")["documents"][0]
    number = part["document"]
    assert part["url"] == f"https://a.example/{number}"
    assert (part["record"], part["offset"], part["language"]) == (number, 1000 + number, "de")
    assert part["piece"] == number % 2
    main(["data", "trace", "--run", str(run), "--step", "21"])
    piece = ", piece 1" if number % 2 else ""
    wanted = f"crawl.warc.gz, record {number}, byte {1000 + number}{piece}, https://a.example/{number}; {part['shard']}"
    assert wanted in capsys.readouterr().out


def test_a_step_behind_the_last_record_is_traced_and_said_to_be(run: Path, capsys) -> None:
    """A step that failed on its samples has no line in the log, and is what one wants to see."""
    assert main(["data", "trace", "--run", str(run), "--step", "61"]) == 0
    assert "step 61 of attempt 3, behind its last record (step 60); 8 samples" in capsys.readouterr().out
    assert main(["data", "trace", "--run", str(run), "--step", "71"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
