"""What a local launch would run, word for word; what is shown is what is executed."""

import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from gptdist.cli.main import main
from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from gptdist.errors import EXIT_FAILED, EXIT_REQUEUE
from launch.job import Job, NodeCommand, heartbeat_folder
from launch.local import local_command, run_local
from tests.support.ranks import repository

DEMO = repository() / "configs" / "runs" / "demo-cpu.yaml"


def job(*words: str, path: Path = DEMO) -> Job:
    return Job(load_config(RunConfig, DEMO, list(words)), path, words)


def test_command_word_for_word(tmp_path: Path) -> None:
    plain = Job(load_config(RunConfig, DEMO), Path("my run.yaml"), ("name=a b", "seed=$(id)"))
    logs = tmp_path / "a b" / "launch_0001"
    beats = str(heartbeat_folder(logs))
    command = local_command(plain, cores=5, log_folder=logs)
    assert command.environment == (
        ("OMP_NUM_THREADS", "2"),
        ("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1"),
        ("GPTDIST_LOG_DIR", str(logs)),
        ("GPTDIST_HEARTBEAT_DIR", beats),
    )
    assert command.shell_line() == (
        f"OMP_NUM_THREADS=2 TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 GPTDIST_LOG_DIR='{logs}' "
        f"GPTDIST_HEARTBEAT_DIR={beats} {shlex.quote(sys.executable)} -m launch.torchrun --standalone "
        "--nproc-per-node=2 --max-restarts=0 --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 "
        "--shutdown-timeout=60 -m gptdist.train 'my run.yaml' 'name=a b' 'seed=$(id)'"
    )


def test_threads_can_be_set_and_are_never_zero() -> None:
    assert local_command(job("launch.threads_per_rank=3"), cores=64).environment[0] == ("OMP_NUM_THREADS", "3")
    assert local_command(job(), cores=1).environment[0] == ("OMP_NUM_THREADS", "1")


def test_a_time_limit_is_told_to_the_ranks_less_the_margin() -> None:
    limited = job("launch.time_limit_minutes=60", "launch.save_margin_seconds=100")
    assert ("GPTDIST_STOP_AFTER_SECONDS", "3500") in local_command(limited, cores=2).environment
    shorter = local_command(limited, cores=2, stop_after_seconds=7.4)
    assert ("GPTDIST_STOP_AFTER_SECONDS", "7") in shorter.environment, "what a restart has left"


def test_dry_run_prints_and_starts_nothing(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["launch", "local", str(DEMO), "seed=5", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shlex.split(shown)[-2:] == [str(DEMO), "seed=5"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("script", "status"), [("", EXIT_FAILED), ("os.kill(os.getpid(), 15)", EXIT_REQUEUE)])
def test_what_says_nothing_has_failed_unless_a_signal_ended_it(tmp_path: Path, script: str, status: int) -> None:
    logs = tmp_path / "logs"
    environment = (("GPTDIST_LOG_DIR", str(logs)), ("GPTDIST_HEARTBEAT_DIR", str(tmp_path / "beats")))
    command = NodeCommand((sys.executable, "-c", f"import os; {script}"), environment)
    before = signal.getsignal(signal.SIGTERM)
    assert run_local(job(), command).status == status
    assert signal.getsignal(signal.SIGTERM) == before
    assert [path.name for path in tmp_path.iterdir()] == ["logs"], "heartbeats do not stay"
    assert not os.environ.get("GPTDIST_LOG_DIR")


def test_deterministic_mode_sets_what_cublas_reads_at_its_start() -> None:
    command = local_command(job("training.deterministic=true"), cores=2)
    assert ("CUBLAS_WORKSPACE_CONFIG", ":4096:8") in command.environment
