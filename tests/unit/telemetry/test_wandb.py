"""Weights & Biases, by its own package and without its service."""

import importlib.util
import time
from pathlib import Path

import pytest
import yaml

from gptdist.cli.main import main
from gptdist.config.telemetry import TelemetryConfig, WandbConfig
from gptdist.telemetry import wandb_run
from gptdist.telemetry.metrics import Metrics
from gptdist.telemetry.wandb_run import WandbRun
from tests.support.datasets import run_tree

OFFLINE = WandbConfig(project="gptdist", mode="offline")


def _attempt(folder: Path, attempt: int, loss: float) -> None:
    run = WandbRun(folder, "test", OFFLINE, {"seed": 1})
    with Metrics(folder, attempt, train_steps=9, first_step=0, tensorboard=False, wandb=run) as metrics:
        metrics.log("train", 7, {"loss": loss, "mfu": None})


def test_attempts_are_one_run_with_the_numbers_of_the_records(tmp_path: Path) -> None:
    for attempt, loss in ((1, 2.4375), (2, 2.4125)):
        _attempt(tmp_path, attempt, loss)
        time.sleep(1.1)  # the package names folders by the second
    name = (tmp_path / "wandb.id").read_text()
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(files) == 2
    for path, loss in zip(files, (b"2.4375", b"2.4125"), strict=True):
        content = path.read_bytes()
        assert b"train/loss" in content
        assert loss in content
        assert b"train/mfu" not in content, "nobody knows it"


def test_a_service_that_does_not_answer_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_run, "INIT_TIMEOUT_SECONDS", 2.0)
    run = WandbRun(tmp_path, "test", WandbConfig(project="gptdist"), {})
    run.log("train", 1, {"loss": 1.0})
    run.close()
    assert "training goes on without it" in caplog.text


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TelemetryConfig(wandb=OFFLINE)
    assert config.package_problems() == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert config.package_problems() == [
        "telemetry.wandb: the package wandb is not installed; pip install 'gptdist[wandb]', or leave it out"
    ]
    assert TelemetryConfig().package_problems() == []


def test_a_launch_tells_missing_packages_and_folders_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = run_tree(tmp_path, telemetry={"wandb": {"project": "p"}}, data={"tokenizer": str(tmp_path / "gone")})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["launch", "local", str(tmp_path / "run.yaml")]) == 2
    told = capsys.readouterr().err
    assert "data.tokenizer: folder" in told
    assert "telemetry.wandb: the package wandb is not installed" in told


def test_an_empty_project_is_refused() -> None:
    assert TelemetryConfig(wandb=WandbConfig(project="")).problems() == [
        "telemetry.wandb.project: empty; name a project"
    ]
