"""A resumed run is the same run: bit for bit on the same layout, within a stated tolerance on another."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.datasets import GPT2, LLAMA, MODERN, run_tree, write_dataset
from tests.support.jobs import train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks
from tests.support.step_folders import rewrite_manifest, write_tensors

OTHER_LAYOUT_TOLERANCE = 5e-6
"""fp32 losses of 3 steps after a resume on another layout, where sums are taken in another order."""

SAVE, END = 3, 6
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}

Z0, Z1, Z2, Z3 = (TestedLayout(2, stage, 1) for stage in range(4))
ONE = TestedLayout(1, 1, 1)
T0, T1, T2, T3 = (TestedLayout(2, stage, 2) for stage in range(4))
WIDE1, WIDE3 = TestedLayout(4, 1, 2), TestedLayout(4, 3, 2)
S1, S3 = (TestedLayout(2, stage, 2, sequence_parallel=True) for stage in (1, 3))


def _tree(folder: Path, name: str, layout: TestedLayout, model, **changes):
    return run_tree(folder, model=model, run_dir=str(folder / name), **layout.sections(), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


SAME = [ONE, Z0, Z1, Z2, Z3, T0, T1, T2, T3, WIDE1, WIDE3, S1, S3]
PRECISIONS = [(layout, "fp32") for layout in SAME] + [(layout, "bf16") for layout in SAME if layout.zero_stage]
"""bf16 at ZeRO stage 0 is refused by the config: see test_run_config."""


@pytest.mark.parametrize(("layout", "precision"), PRECISIONS, ids=str)
def test_same_layout_resumes_bit_for_bit_with_dropout(folder: Path, layout: TestedLayout, precision: str) -> None:
    name = f"same-{layout}-{precision}"
    tree = _tree(folder, name, layout, GPT2 | DROPOUT, training={"precision": precision})
    whole = run_ranks(layout.world_size, train_steps, tree, END, SAVE)[0]
    resumed = run_ranks(layout.world_size, train_steps, tree, END)[0]
    assert [step for step, *_ in resumed] == list(range(SAVE + 1, END + 1))
    assert resumed == whole[SAVE:], "floats are compared bit for bit"


PAIRS = [
    (Z1, T1, GPT2),
    (T1, Z1, GPT2),
    (Z1, Z3, GPT2),
    (Z3, Z1, GPT2),
    (Z2, T0, GPT2),
    (T0, Z2, GPT2),
    (Z0, T3, LLAMA),
    (T3, ONE, LLAMA),
    (ONE, T1, LLAMA),
    (T1, Z3, LLAMA),
    (WIDE3, Z1, LLAMA),
    (Z3, WIDE1, LLAMA),
    (WIDE1, T3, GPT2),
    (T1, Z3, MODERN),
    (Z3, T0, MODERN),
    (S1, Z3, GPT2),
    (T0, S1, GPT2),
]


@pytest.mark.parametrize(
    ("before", "after", "model"), PAIRS, ids=lambda v: str(v) if isinstance(v, TestedLayout) else ""
)
def test_other_layout_goes_on_with_the_same_samples(folder: Path, before, after, model) -> None:
    name = f"{before}-{after}-{'llama' if model is LLAMA else 'modern' if model is MODERN else 'gpt2'}"
    whole = run_ranks(before.world_size, train_steps, _tree(folder, name, before, model), END, SAVE)[0]
    resumed = run_ranks(after.world_size, train_steps, _tree(folder, name, after, model), END)[0]
    assert len(resumed) == END - SAVE
    assert [loss for _, loss, _ in resumed] == pytest.approx(
        [loss for _, loss, _ in whole[SAVE:]], abs=OTHER_LAYOUT_TOLERANCE
    )


def test_comparison_notices_lost_moments(folder: Path) -> None:
    """Without Adam's moments the losses differ by far more than the tolerance."""
    tree = _tree(folder, "moments", ONE, GPT2)
    whole = run_ranks(1, train_steps, tree, END, SAVE)[0]
    checkpoint = next((folder / "moments" / "checkpoints").glob("step_*"))
    _zero_moments(checkpoint)
    resumed = run_ranks(1, train_steps, tree, END)[0]
    assert abs(resumed[-1][1] - whole[-1][1]) > 20 * OTHER_LAYOUT_TOLERANCE


def _zero_moments(checkpoint: Path) -> None:
    from safetensors.torch import load_file

    path = checkpoint / "rank_00000.safetensors"
    tensors = {key: values * (0 if key.startswith("exp_avg") else 1) for key, values in load_file(path).items()}
    entry = write_tensors(path, tensors)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"] = [entry.tree()]
    rewrite_manifest(checkpoint, manifest)


def test_damaged_newest_is_passed_over(folder: Path) -> None:
    tree = _tree(folder, "damaged", Z1, GPT2)
    whole = run_ranks(2, train_steps, tree, 2, 2)[0]
    whole += run_ranks(2, train_steps, tree, END, 4)[0]
    newest = folder / "damaged" / "checkpoints" / "step_00000004" / "rank_00001.safetensors"
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    resumed = run_ranks(2, train_steps, tree, END)[0]
    assert resumed == whole[2:], "went on from step 2, the newest whole one"


def test_nothing_whole_is_an_error_not_a_new_beginning(folder: Path) -> None:
    tree = _tree(folder, "nothing", ONE, GPT2)
    run_ranks(1, train_steps, tree, 2, 2)
    (folder / "nothing" / "checkpoints" / "step_00000002" / "rank_00000.safetensors").unlink()
    with pytest.raises(AssertionError, match=r"none of 1 checkpoints is whole .*missing.*set another run_dir"):
        run_ranks(1, train_steps, tree, END)


def test_a_missing_folder_of_checkpoints_is_an_error_not_a_new_beginning(folder: Path) -> None:
    tree = _tree(folder, "gone", ONE, GPT2)
    run_ranks(1, train_steps, tree, 2, 2)
    (folder / "gone" / "checkpoints").rename(folder / "gone" / "elsewhere")
    said = r"gone/checkpoints: holds no checkpoint, and .*ledger.jsonl notes one of step 2; .* set another run_dir"
    with pytest.raises(AssertionError, match=said):
        run_ranks(1, train_steps, tree, END)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": GPT2 | {"activation": "gelu"}}, "model.activation: gelu_tanh → gelu; a run keeps its model"),
        ({"model": GPT2 | {"num_layers": 3}}, "model.num_layers: 2 → 3"),
    ],
)
def test_another_model_is_refused(folder: Path, changes, message: str) -> None:
    if not (folder / "refused").exists():
        run_ranks(1, train_steps, run_tree(folder, run_dir=str(folder / "refused")), 2, 2)
    with pytest.raises(AssertionError, match=message):
        run_ranks(2, train_steps, run_tree(folder, run_dir=str(folder / "refused"), **Z1.sections(), **changes), END)


def test_other_data_behind_the_same_path_is_refused(tmp_path: Path) -> None:
    tree = run_tree(tmp_path)
    run_ranks(1, train_steps, tree, 2, 2)
    shutil.rmtree(tmp_path / "data" / "prose")
    write_dataset(tmp_path / "data" / "prose", seed=7)
    with pytest.raises(AssertionError, match=r"content of data source 'prose' was .* and is now"):
        run_ranks(1, train_steps, tree, END)


@pytest.mark.parametrize("fsync", range(1, 11))
def test_kill_minus_nine_at_each_write_of_a_save(folder: Path, fsync: int) -> None:
    """A save syncs ten times; before each of them the process dies. Nothing older is lost, nothing half is taken."""
    tree = _tree(folder, f"die-{fsync}", ONE, GPT2)
    whole = run_ranks(1, train_steps, tree, 2, 2)[0]
    with pytest.raises(AssertionError, match="died without a word"):
        run_ranks(1, _die_at_fsync, tree, fsync)
    resumed = run_ranks(1, train_steps, tree, END, 4)[0]
    assert resumed[0][0] in (3, 5), "from the older one, or from the new one once it has its name"
    expected = run_ranks(1, train_steps, _tree(folder, f"die-whole-{fsync}", ONE, GPT2), END)[0]
    assert whole + expected[2:] == expected
    assert resumed == expected[resumed[0][0] - 1 :]
    assert not list((folder / f"die-{fsync}" / "checkpoints").glob(".partial*")) or resumed[0][0] == 5


def _die_at_fsync(tree, count: int) -> None:
    """Train to step 4 and save; be killed at the given call of fsync."""
    import os
    import signal

    sync, calls = os.fsync, []

    def counted(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = counted
    train_steps(tree, 4, 4)


def test_full_disk_fails_on_every_rank_and_keeps_what_is_there(folder: Path) -> None:
    tree = _tree(folder, "disk", Z1, GPT2)
    run_ranks(2, train_steps, tree, 2, 2)
    said = r"not written \(rank 1: .*No space left on device\), older checkpoints are untouched; it was to be the last"
    with pytest.raises(AssertionError, match=said) as failure:
        run_ranks(2, _fail_to_save, tree)
    assert str(failure.value).count("CheckpointError: ") == 2, "the rank with space also hears of it"
    assert [path.name for path in (folder / "disk" / "checkpoints").glob("step_*")] == ["step_00000002"]
    assert run_ranks(2, train_steps, tree, END)[0][0][0] == 3


def _fail_to_save(tree) -> None:
    """Save with a disk that is full for rank 1: the error is the operating system's, raised where files are written."""
    import os

    from gptdist.checkpoint import save as saving

    write = saving.write_stream

    def full(*arguments):
        if os.environ["RANK"] == "1":
            raise OSError(28, "No space left on device")
        return write(*arguments)

    saving.write_stream = full
    train_steps(tree, 4, 4)
