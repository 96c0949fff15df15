"""Training goes on while a checkpoint is written, and what is written is what a synchronous save would have written."""

import io
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.find import newest_whole
from gptdist.checkpoint.manifest import read_manifest
from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import GPT2, LLAMA, run_tree
from tests.support.jobs import open_run, step_until, train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

Z1, Z3, T1 = TestedLayout(2, 1, 1), TestedLayout(2, 3, 1), TestedLayout(2, 1, 2)
SAVE, END = 2, 5
OPEN_AFTER_SECONDS = 0.3


def _tree(folder: Path, name: str, layout: TestedLayout, model: dict[str, Any] = GPT2, **changes: Any) -> Any:
    return run_tree(folder, model=model, run_dir=str(folder / name), **layout.sections(), **changes)


def _events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_json_lines(folder / "ledger.jsonl") if event["event"] == kind]


def hold_files(gate: threading.Event) -> None:
    """Let no byte into a file of tensors before ``gate`` is open, as a disk does that has stopped."""
    open_any = Path.open

    class HeldFile(io.FileIO):
        def write(self, content: Any) -> int:
            gate.wait()
            return super().write(content)

    def opened(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        is_held = path.suffix == ".safetensors" and mode == "wb"
        return HeldFile(path, "wb") if is_held else open_any(path, mode, *arguments, **options)

    Path.open = opened  # type: ignore[method-assign,assignment]


def train_while_held(tree: dict[str, Any]) -> list[tuple[int, float, float]]:
    """Save at step 2, train to step 5 before anything of it is written, and save again."""
    from gptdist.train.loop import save

    gate = threading.Event()
    hold_files(gate)
    run = open_run(tree)
    seen = step_until(run, END, SAVE)
    assert not list(run.config.checkpoints_folder.glob("step_*")), "nothing has its name before all of it is there"
    assert list(run.config.checkpoints_folder.glob(".partial-*"))
    opener = threading.Timer(OPEN_AFTER_SECONDS, gate.set)
    opener.start()
    save(run)
    assert gate.is_set(), "the second save waited for the first"
    assert [path.name for path in run.config.checkpoints_folder.glob("step_*")] == [f"step_{SAVE:08d}"]
    run.saver.finish()
    opener.join()
    return seen


@pytest.mark.parametrize(("layout", "model"), [(Z1, GPT2), (Z3, LLAMA), (T1, GPT2)], ids=["z1", "z3", "tp2"])
def test_the_same_bytes_as_a_synchronous_save_although_training_goes_on(
    tmp_path: Path, layout: TestedLayout, model: dict[str, Any]
) -> None:
    held, plain = _tree(tmp_path, "held", layout, model), _tree(tmp_path, "plain", layout, model)
    seen = run_ranks(2, train_while_held, held)[0]
    expected = run_ranks(2, train_steps, plain | {"checkpoints": {"asynchronous": False}}, END, SAVE)[0]
    assert seen == expected
    found, wanted = (read_manifest(tmp_path / name / "checkpoints" / f"step_{SAVE:08d}") for name in ("held", "plain"))
    assert found.files == wanted.files, "names, sizes, hashes"
    assert (found.tensors, found.fragments) == (wanted.tensors, wanted.fragments)
    assert found.progress.optimizer_step == wanted.progress.optimizer_step == SAVE
    folder, passed_over = newest_whole(tmp_path / "held" / "checkpoints")
    assert folder is not None
    assert (folder.name, passed_over) == (f"step_{END:08d}", [])

    first, second = _events(tmp_path / "held", "checkpoint")
    (synchronous,) = _events(tmp_path / "plain", "checkpoint")
    assert (first["step"], second["step"]) == (SAVE, END)
    assert [one["asynchronous"] for one in (first, second, synchronous)] == [True, True, False]
    assert first["bytes"] == synchronous["bytes"] == sum(file.num_bytes for file in found.files)
    assert first["write_seconds"] > OPEN_AFTER_SECONDS
    assert first["bytes_per_second"] == pytest.approx(first["bytes"] / first["write_seconds"])
    assert first["stall_seconds"] >= 0.8 * OPEN_AFTER_SECONDS, "the second save waited for it"


def die_while_held(tree: dict[str, Any]) -> None:
    """Save at step 3, train one more step, and be killed while nothing of the checkpoint is on the disk."""
    import os
    import signal

    from gptdist.train.loop import save, train_step

    hold_files(threading.Event())
    run = open_run(tree)
    for _ in range(2):
        run.state.advance(train_step(run))
        if run.state.step == SAVE + 1:
            save(run)
    os.kill(os.getpid(), signal.SIGKILL)


def test_kill_minus_nine_while_it_is_written_leaves_the_older_one(tmp_path: Path) -> None:
    tree = _tree(tmp_path, "killed", Z1, GPT2 | {"hidden_dropout": 0.1})
    whole = run_ranks(2, train_steps, tree, SAVE, SAVE)[0]
    with pytest.raises(AssertionError, match="died without a word"):
        run_ranks(2, die_while_held, tree)
    assert list((tmp_path / "killed" / "checkpoints").glob(f".partial-step_{SAVE + 1:08d}-*"))
    whole += run_ranks(2, train_steps, tree, END, END)[0]
    other = tree | {"run_dir": str(tmp_path / "whole")}
    assert whole == run_ranks(2, train_steps, other, END)[0], "floats are compared bit for bit"
    names = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert names == ["latest", f"step_{SAVE:08d}", f"step_{END:08d}"], "what the kill left is gone"


def crash_while_held(tree: dict[str, Any]) -> None:
    """Run into a bug while a checkpoint is being written by a slow disk."""
    from gptdist.train.loop import save, train_step

    gate = threading.Event()
    hold_files(gate)
    run = open_run(tree)
    opener = threading.Timer(OPEN_AFTER_SECONDS, gate.set)
    with run.saver:
        run.state.advance(train_step(run))
        save(run)
        opener.start()
        raise ZeroDivisionError("a bug")


def test_a_checkpoint_under_way_is_finished_when_every_rank_crashes(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a bug"):
        run_ranks(2, crash_while_held, _tree(tmp_path, "run", Z1))
    folder, passed_over = newest_whole(tmp_path / "run/checkpoints")
    assert (folder, passed_over) == (tmp_path / "run/checkpoints/step_00000001", [])


def train_and_listen(tree: dict[str, Any]) -> list[str]:
    """Train with two saves; return the warnings of this rank."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logging.getLogger("gptdist.checkpoint").addHandler(listener)
    from gptdist.train.loop import train

    run = open_run(tree)
    with run.saver:
        train(run)
    return said


def test_what_one_rank_has_no_room_for_is_saved_synchronously_by_all(tmp_path: Path) -> None:
    tree = _tree(tmp_path, "run", T1, training={"train_steps": 4}, intervals={"save_steps": 2})
    assert run_ranks(2, train_and_listen, tree) == [[], []]
    first, second = (file.num_bytes for file in read_manifest(tmp_path / "run/checkpoints/step_00000002").files)
    assert first > second, "tensor-parallel rank 0 writes what both hold"
    budget = (first + second) // 2
    small = tree | {"run_dir": str(tmp_path / "small"), "checkpoints": {"host_buffer_bytes": budget}}
    (said,), nothing = run_ranks(2, train_and_listen, small)
    assert said.startswith("checkpoints.host_buffer_bytes: a copy of what rank 0 saves takes ")
    assert said.endswith(f" bytes, {budget} are stated; training waits while a checkpoint is written")
    assert nothing == []
    assert [event["asynchronous"] for event in _events(tmp_path / "small", "checkpoint")] == [False, False]
    assert [event["asynchronous"] for event in _events(tmp_path / "run", "checkpoint")] == [True, True]


def break_on_rank_1(tree: dict[str, Any]) -> str:
    """Save with a bug on rank 1 only; return what ended this rank, and at which step."""
    import os

    from gptdist.checkpoint import save as saving
    from gptdist.train.loop import save, train_step

    write = saving.write_stream

    def broken(*arguments: Any) -> Any:
        if os.environ["RANK"] == "1":
            raise ZeroDivisionError("a bug")
        return write(*arguments)

    saving.write_stream = broken
    run = open_run(tree)
    try:
        for _ in range(100):
            run.state.advance(train_step(run))
            if run.state.step == 1:
                save(run)
    except Exception as error:
        return f"{type(error).__name__}: {error} (step {run.state.step})"
    return "went on"


def test_a_bug_in_the_thread_that_writes_ends_every_rank(tmp_path: Path) -> None:
    first, second = run_ranks(2, break_on_rank_1, _tree(tmp_path, "run", Z1))
    step = second.partition("(")[2]
    assert second == f"ZeroDivisionError: a bug ({step}"
    assert first.startswith("CheckpointError: ")
    assert first.endswith(
        f"step_00000001: not written (rank 1: ZeroDivisionError('a bug')); older checkpoints are untouched ({step}"
    )
    assert not list((tmp_path / "run/checkpoints").iterdir())


def test_a_reader_sees_whole_checkpoints_only(tmp_path: Path) -> None:
    tree = _tree(tmp_path, "run", Z1, training={"train_steps": 30}, intervals={"save_steps": 1})
    seen: list[tuple[int, list[str], str]] = []
    stop = threading.Event()

    def read() -> None:
        checkpoints = tmp_path / "run/checkpoints"
        while not stop.is_set():
            folder, passed_over = newest_whole(checkpoints)
            if folder is not None:
                latest = (checkpoints / "latest").read_text() if (checkpoints / "latest").exists() else ""
                seen.append((read_manifest(folder).step, passed_over, latest))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        run_ranks(2, train_and_listen, tree)
    finally:
        stop.set()
        reader.join()
    steps = [step for step, *_ in seen]
    assert steps == sorted(steps)
    assert len(set(steps)) > 3, "it saw several come"
    assert all(not passed_over for _, passed_over, _ in seen)
    assert all(latest in ("", *(f"step_{number:08d}" for number in range(1, 31))) for *_, latest in seen)
    assert json.loads((tmp_path / "run/checkpoints/step_00000030/manifest.json").read_text())["progress"]["step"] == 30
