"""Calibration samples: of the training mixture, seeded, never out of validation; and models of any kind are read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gptdist.compress.as_checkpoint import opened_as_checkpoint
from gptdist.compress.calibration import CalibrationOptions, calibration_sample
from gptdist.data.dataset import TokenDataset
from gptdist.errors import CheckpointError, ConfigError, ExportError
from tests.support.datasets import GPT2, run_tree
from tests.unit.compress.exported import export, saved_run

OPTIONS = CalibrationOptions(sequences=40, length=64, seed=3)


def windows(folder: Path, split: str, length: int) -> set[bytes]:
    """All windows of a split, aligned or not."""
    dataset = TokenDataset(folder, split)
    tokens = dataset.read(0, dataset.num_tokens).astype(np.int64)
    return {tokens[begin : begin + length].tobytes() for begin in range(len(tokens) - length + 1)}


def test_the_sample_is_of_the_training_mixture(tmp_path: Path) -> None:
    tree = run_tree(tmp_path)
    found = calibration_sample(tree, (), OPTIONS, vocab_size=260)
    assert found.shape == (40, 64)
    assert found.dtype == np.int64
    prose, code = (windows(tmp_path / "data" / name, "train", 64) for name in ("prose", "code"))
    of_prose = sum(row.tobytes() in prose for row in found)
    of_code = sum(row.tobytes() in code for row in found)
    assert of_prose >= 25  # 28 by its weight, 0.7
    assert of_code >= 10
    for name in ("prose", "code"):
        assert not any(row.tobytes() in windows(tmp_path / "data" / name, "validation", 64) for row in found)


def test_the_seed_decides(tmp_path: Path) -> None:
    tree = run_tree(tmp_path)
    first, again = (calibration_sample(tree, (), OPTIONS, vocab_size=260) for _ in range(2))
    assert np.array_equal(first, again)
    other = calibration_sample(tree, (), CalibrationOptions(40, 64, seed=4), vocab_size=260)
    assert not np.array_equal(first, other)


def test_chosen_folders_come_in_place_of_the_runs(tmp_path: Path) -> None:
    tree = run_tree(tmp_path)
    folder = tmp_path / "data" / "code"
    tree["data"]["sources"] = []
    with pytest.raises(ExportError, match="imported without any; name a dataset with --data"):
        calibration_sample(tree, (), OPTIONS, vocab_size=260)
    found = calibration_sample(tree, [folder], OPTIONS, vocab_size=260)
    assert all(row.tobytes() in windows(folder, "train", 64) for row in found)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    tree = run_tree(tmp_path)
    with pytest.raises(ConfigError) as caught:
        calibration_sample(tree, (), CalibrationOptions(0, 1, -1), vocab_size=260)
    assert len(caught.value.problems) == 3
    assert caught.value.problems[0] == "--calibration-sequences: must be at least 1, got 0"
    with pytest.raises(ExportError, match="but the model knows 0 to 99; take data of the model's tokenizer"):
        calibration_sample(tree, (), OPTIONS, vocab_size=100)
    with pytest.raises(ExportError, match=r"absent' does not exist; run from the folder"):
        calibration_sample(tree, [tmp_path / "absent"], OPTIONS, vocab_size=260)


def test_a_huggingface_folder_is_read_like_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, _ = saved_run(tmp_path, GPT2)
    assert export(run_folder) == 0
    folder = next(path.parent for path in tmp_path.rglob("export.json"))
    beside = tmp_path / "beside" / "pruned"
    with opened_as_checkpoint(run_folder, beside) as of_run, opened_as_checkpoint(folder, beside) as of_folder:
        assert sorted(of_run.tensor_names) == sorted(of_folder.tensor_names)
        for name in of_run.tensor_names:
            assert torch.equal(of_run.weight(name), of_folder.weight(name)), name
    assert not list((tmp_path / "beside").iterdir())
    with (
        pytest.raises(CheckpointError, match="absent: does not exist; name a run, a checkpoint or a Hugging"),
        opened_as_checkpoint(tmp_path / "absent", beside),
    ):
        pass
