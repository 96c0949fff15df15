"""``gptdist distill``: logits are kept, a run under a teacher is one command, folders are imported once."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gptdist.cli.main import main
from gptdist.compress.distill import given_model, import_once
from gptdist.errors import CheckpointError
from tests.support.datasets import run_tree
from tests.unit.compress.exported import saved_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run, the same as a Hugging Face folder, and the config of a student."""
    folder = tmp_path_factory.mktemp("distill")
    saved_run(folder, {})
    assert main(["export", str(folder / "run"), "--to", "hf", "--output", str(folder / "hf")]) == 0
    YAML(typ="safe", pure=True).dump(run_tree(folder, run_dir=str(folder / "student")), folder / "student.yaml")
    return folder


def test_logits_are_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distill", "cache", str(folder / "student.yaml"), "--teacher", str(folder / "run")]
    assert main([*words, "--output", str(folder / "drawn"), "--samples", "8"]) == 0
    printed = capsys.readouterr().out
    assert "8 of 8 samples" in printed
    assert "kept     sampled 12 at temperature 1" in printed
    assert "8 samples" in printed
    assert json.loads((folder / "drawn/logits.json").read_text())["facts"]["kept"] == 12
    assert main([*words, "--output", str(folder / "likeliest"), "--samples", "4", "--top-k", "3"]) == 0
    assert "kept     top_k 3" in capsys.readouterr().out


def test_what_cannot_be_kept_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distill", "cache", str(folder / "student.yaml"), "--output", str(folder / "none")]
    mapped = [f"distillation={{teacher: {folder / 'run'}, map_vocabulary: true}}"]
    for others, message in (
        ([], "distillation.teacher: missing; name a teacher with --teacher"),
        (["--teacher", str(folder / "gone")], "does not exist; name another"),
        (mapped, "distillation.map_vocabulary: a cache is of the run's own tokens; leave it out"),
        (["--teacher", str(folder / "run"), "--samples", "0"], "--samples: must be at least 1, got 0"),
    ):
        assert main([*words, *others]) == 2
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1
        assert message in error[0]
    assert not (folder / "none").exists()


def test_a_run_under_a_teacher_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distill", "run", str(folder / "student.yaml"), "training.train_steps=4", "--dry-run"]
    assert main([*words, "--teacher", str(folder / "hf"), "--student", str(folder / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"gptdist import {folder}/hf --output {folder}/student/teacher --no-check"
    assert lines[1] == (
        f"gptdist launch local {folder}/student.yaml training.train_steps=4 "
        f"distillation.teacher={folder}/student/teacher training.init_from={folder}/run"
    )
    assert "torchrun" in lines[2] or "torch.distributed.run" in lines[2]
    for others, message in (
        ([], "distillation: missing; name a teacher with --teacher"),
        (["--teacher", str(folder / "gone")], "--teacher: '"),
    ):
        assert main([*words, *others]) == 2
        assert message in capsys.readouterr().err


def test_a_hugging_face_folder_is_imported_once(folder: Path, tmp_path: Path) -> None:
    given = given_model(folder / "hf", tmp_path, "teacher")
    import_once(given, folder / "data/tokenizer")
    manifest = (tmp_path / "teacher/manifest.json").read_bytes()
    import_once(given, folder / "data/tokenizer")
    assert (tmp_path / "teacher/manifest.json").read_bytes() == manifest
    config = folder / "hf/config.json"
    before = config.read_text()
    config.write_text(before + "\n")
    with pytest.raises(
        CheckpointError, match=r"teacher: was made of other weights than .*hf \(config.json\); remove it"
    ):
        import_once(given, folder / "data/tokenizer")
    config.write_text(before)
