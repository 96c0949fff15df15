"""What a local launch would run, word for word; what is shown is what is executed."""

import shlex
import sys
from pathlib import Path

from gptdist.cli.main import main
from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from launch.local import local_command, run_local
from tests.support.ranks import repository

DEMO = repository() / "configs" / "runs" / "demo-cpu.yaml"


def test_command_word_for_word() -> None:
    config = load_config(RunConfig, DEMO)
    command = local_command(config, Path("my run.yaml"), ["name=a b", "seed=$(id)"], cores=5)
    assert command.environment == (("OMP_NUM_THREADS", "2"), ("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1"))
    assert command.shell_line() == (
        "OMP_NUM_THREADS=2 TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 "
        f"{shlex.quote(sys.executable)} -m torch.distributed.run --standalone --nproc-per-node=2 --max-restarts=0 "
        "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --shutdown-timeout=60 "
        "-m gptdist.train 'my run.yaml' 'name=a b' 'seed=$(id)'"
    )


def test_threads_can_be_set_and_are_never_zero() -> None:
    config = load_config(RunConfig, DEMO, ["launch.threads_per_rank=3"])
    assert local_command(config, DEMO, [], cores=64).environment[0] == ("OMP_NUM_THREADS", "3")
    config = load_config(RunConfig, DEMO)
    assert local_command(config, DEMO, [], cores=1).environment[0] == ("OMP_NUM_THREADS", "1")


def test_dry_run_prints_and_starts_nothing(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["launch", "local", str(DEMO), "seed=5", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shlex.split(shown)[-2:] == [str(DEMO), "seed=5"]
    assert not list(tmp_path.iterdir())


def test_exit_status_is_the_commands_own(tmp_path: Path) -> None:
    from launch.job import NodeCommand

    script = "import os, sys; sys.exit(int(os.environ['STATUS']))"
    command = NodeCommand((sys.executable, "-c", script), (("STATUS", "7"),))
    assert run_local(command) == 7


def test_deterministic_mode_sets_what_cublas_reads_at_its_start() -> None:
    config = load_config(RunConfig, DEMO, ["training.deterministic=true"])
    assert ("CUBLAS_WORKSPACE_CONFIG", ":4096:8") in local_command(config, DEMO, [], cores=2).environment
