"""``gptdist doctor --slurm`` within a job of a real Slurm."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptdist.cli.main import main
from launch.preflight.reach import UnderSrun
from tests.support.ranks import repository
from tests.support.slurm_cluster import missing_programs, slurm_cluster

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"Slurm needs {missing_programs()}")

CONFIG = repository() / "configs" / "runs" / "demo-cpu.yaml"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as config:
        yield config


def _environment(slurm: Path) -> dict[str, str]:
    return {"SLURM_CONF": str(slurm), "PYTHONPATH": str(repository()), "TORCH_EXTENSIONS_DIR": str(slurm / "none")}


def test_all_nodes_of_a_job_are_looked_at(slurm: Path, tmp_path: Path) -> None:
    words = [
        str(CONFIG),
        f"run_dir={tmp_path}/run",
        "batch.global_batch_size=32",
        "--port",
        "29518",
        "--slurm",
        "--json",
    ]
    done = subprocess.run(
        ["salloc", "-Q", "-N2", sys.executable, "-m", "gptdist.cli.main", "doctor", *words],
        env={**os.environ, **_environment(slurm)},
        cwd=repository(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    verdict = json.loads(done.stdout)
    assert {"reach", "code", "config", "folder", "names"} <= set(verdict["checks"])
    # These nodes are one machine, whose name server knows neither.
    assert {one["check"] for one in verdict["problems"]} <= {"names"}, verdict
    assert [one["host"] for one in verdict["problems"] if "does not know" in one["text"]] == ["n1", "n2"]


def test_a_node_that_cannot_be_asked_and_no_job(slurm: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name, value in _environment(slurm).items():
        monkeypatch.setenv(name, value)
    replies = UnderSrun().ask("launch.preflight.none", ["n1", "n2"], "", timeout_seconds=60)
    assert [reply.facts for reply in replies] == [None, None]
    for reply, host in zip(replies, ("n1", "n2"), strict=True):
        assert reply.trouble is not None
        assert reply.trouble.startswith(f"{host}: srun has no answer of it (srun: error: ")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    monkeypatch.setenv("SLURM_CONF", os.devnull)
    assert main(["doctor", "--slurm"]) == 2
    assert "SLURM_JOB_NODELIST: scontrol makes no hosts of 'n[1-2]' (" in capsys.readouterr().err
    monkeypatch.delenv("SLURM_JOB_NODELIST")
    assert main(["doctor", "--slurm"]) == 2
    assert "SLURM_JOB_NODELIST is not set; use it within a job" in capsys.readouterr().err
