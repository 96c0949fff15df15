"""Rules and copies by hand."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gptdist.checkpoint.find import step_folders, step_of
from gptdist.checkpoint.remote_store import RemoteStore
from gptdist.cli.main import main
from gptdist.train.lock import lock_folder
from tests.support.datasets import run_tree
from tests.support.step_folders import write_checkpoint


def _config(folder: Path, **checkpoints: Any) -> str:
    for step in (10, 20, 30):
        write_checkpoint(folder / "run/checkpoints", step)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run_tree(folder, checkpoints=checkpoints)))
    return str(path)


def test_prune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _config(tmp_path, keep={"last": 1})
    checkpoints = tmp_path / "run/checkpoints"
    assert main(["checkpoint", "prune", config, "--dry-run", "checkpoints.keep.last=2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"stays  {checkpoints}/step_00000030  newest whole, last 2",
        f"stays  {checkpoints}/step_00000020  last 2",
        f"goes   {checkpoints}/step_00000010",
    ]
    with lock_folder(tmp_path / "run"):
        assert main(["checkpoint", "prune", config]) == 2
        assert "another job is training here" in capsys.readouterr().err
    assert len(step_folders(checkpoints)) == 3
    assert main(["checkpoint", "prune", config]) == 0
    assert capsys.readouterr().out.splitlines() == [f"deleted  {checkpoints}/step_000000{step}" for step in (10, 20)]
    assert [step_of(folder) for folder in step_folders(checkpoints)] == [30]


def test_push(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store").mkdir()
    config = _config(tmp_path)
    assert main(["checkpoint", "push", config]) == 2
    assert "checkpoints.remote: missing; set its url" in capsys.readouterr().err
    url = f"file://{tmp_path}/store"
    assert main(["checkpoint", "push", config, f"checkpoints.remote.url={url}"]) == 0
    assert capsys.readouterr().out.count("copied") == 3
    store = RemoteStore(url, "test")
    assert (len(store.step_names()), store.latest()) == (3, "step_00000030")
    (tmp_path / "run/checkpoints/step_00000020/rank_00000.safetensors").write_bytes(b"x")
    assert main(["checkpoint", "push", config, f"checkpoints.remote.url={url}"]) == 2
    said = capsys.readouterr()
    assert (said.out.count("there"), said.out.count("DAMAGED")) == (2, 1)
    assert "step_00000020/rank_00000.safetensors: has 1 bytes" in said.err
