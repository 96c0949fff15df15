"""Jobs of Slurm: the script word for word, what runs on each node, when a job goes on, and what is refused."""

import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gptdist.cli.main import main
from gptdist.errors import EXIT_DONE, EXIT_FAILED, EXIT_REQUEUE, EXIT_STOPPED, EXIT_USER_ERROR, LaunchError
from gptdist.telemetry.ledger import Ledger
from gptdist.telemetry.rank_log import Failure
from launch.checks import read_job
from launch.job import Job
from launch.nodes import blame, excluded
from launch.outcome import Outcome
from launch.preflight.verdict import Problem, Verdict
from launch.slurm import Container, SlurmOptions, batch_script, next_script, time_seconds
from launch.slurm_control import Control
from launch.slurm_job import Allocation, SlurmJob, step_command
from tests.support.golden import check_golden
from tests.support.ranks import repository

DEMO = "configs/runs/demo-cpu.yaml"
WORDS = ["batch.global_batch_size=32"]
BASE = ["launch", "slurm", DEMO, *WORDS, "--nodes=2", "--dry-run"]
TWO = Allocation("77", ("n1", "n2"), "10.0.0.1")


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch) -> None:
    monkeypatch.chdir(repository())


def _script(capsys, *words: str) -> str:
    assert main([*BASE, *words]) == 0
    return capsys.readouterr().out.replace(sys.executable, "PYTHON").replace(str(repository()), "HERE")


def _job(run: Path, *words: str) -> Job:
    return read_job(Path(DEMO), [*WORDS, f"run_dir={run}", *words], nodes=2)


def test_script_word_for_word(capsys) -> None:
    check_golden("slurm.sbatch", _script(capsys))
    words = ["--partition=gpu", "--account=lab", "--qos=long", "--time=8:00:00", "--gpus=8", "--cpus=96", "--chain=4"]
    words += ["--exclude=n[3-4]", "--exclude=n7", "--sbatch=--mem=0", "--sbatch=--mail-type=END", "--name=it's $(id)"]
    words += ["--container-image=registry#gptdist:1", "--container-mount=/data:/data", "name=a"]
    check_golden("slurm_full.sbatch", _script(capsys, *words))


def test_bash_runs_nothing_but_the_job(capsys, tmp_path: Path) -> None:
    job = Job(_job(tmp_path).config, tmp_path / "my $(touch one).yaml", ("name=`touch two`\ntouch three", "a='b'"))
    script = batch_script(job, SlurmOptions(2, "$(touch four)"), working_dir=tmp_path / "here 100%")
    assert "--output=" + str(tmp_path / "runs") not in script
    assert f"--output={tmp_path}/launch/slurm-%j.out" in script.replace("%%", "%")
    shown = script.replace(shlex.quote(sys.executable), "printf '%s\\n'")
    done = subprocess.run(["bash", "-c", shown], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"-m\nlaunch.slurm_job\n--\n{job.config_path}\n{job.words[0]}\n{job.words[1]}\n"
    assert not [path.name for path in tmp_path.iterdir() if path.name in {"one", "two", "three", "four"}]


def test_each_job_has_a_script_of_its_own(tmp_path: Path) -> None:
    assert next_script(tmp_path) == tmp_path / "launch" / "slurm_0001.sbatch"
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "slurm_0041.sbatch").touch()
    assert next_script(tmp_path).name == "slurm_0042.sbatch"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("90:30", 5430), ("8:00:00", 28800), ("2-12", 216000), ("1-2:03", 93780), ("1-02:03:04", 93784)],
)
def test_time_limits_as_sbatch_reads_them(text: str, seconds: int) -> None:
    assert time_seconds(text) == seconds


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--time=soon"], "--time: must be as sbatch takes it, such as 90 (minutes), 8:00:00 or 2-00:00:00, got 'so"),
        (["--time=3"], "--time: 3 is 180 s, and the run is told to stop 180 s before its end (launch.save_margin_seco"),
        (["--chain=0"], "--chain: must be at least 1, got 0"),
        (["--gpus=0"], "--gpus: must be at least 1, got 0"),
        (["--name=a\nb"], "--name: must be one line of printable characters, got 'a\\nb'"),
        (["--name="], "--name: must be one line of printable characters, got ''"),
        (["--exclude=n1 n2"], "--exclude: must be names of nodes, got 'n1 n2'"),
        (["--sbatch=mem=0"], "--sbatch: must be one option such as --mem=0, got 'mem=0'"),
        (["--nodes=0"], "--nodes: must be at least 1, got 0"),
        (["--nodes=3"], "batch.global_batch_size (32) is no multiple of"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], problem: str, capsys) -> None:
    assert main([*BASE, *words]) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert problem in shown


def test_slurm_is_not_installed(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*BASE, f"run_dir={tmp_path / 'run'}"]) == 0, "a dry run needs none"
    assert main([word for word in BASE if word != "--dry-run"]) == 2
    assert "sbatch: is not installed here; log in to a host of the cluster" in capsys.readouterr().err


def test_the_script_is_for_jobs_only(capsys, monkeypatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    from launch.slurm_job import main as script

    assert script(["--", DEMO]) == 2
    assert "SLURM_JOB_ID: is not set; this is for batch scripts" in capsys.readouterr().err


def test_what_runs_on_each_node(tmp_path: Path) -> None:
    job = _job(tmp_path, "training.device=auto")
    argv = list(step_command(job, TWO, tmp_path / "logs", attempt=1).argv)
    assert argv[:7] == [
        "srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--wait=120", "--export=ALL",
    ]  # fmt: skip
    assert argv[7:12] == ["sh", "-c", 'PET_NODE_RANK=$SLURM_NODEID exec "$@"', "sh", sys.executable]
    assert {"--nnodes=2", "--master-addr=10.0.0.1", "--quiet"} <= set(argv)
    assert not [word for word in argv if word.startswith("--node-rank")]

    mounts = ("/data:/data", "/scratch")
    pyxis = list(step_command(job, TWO, tmp_path, attempt=1, container=Container("x.sqsh", "pyxis", mounts)).argv)
    assert pyxis[7:10] == [
        "--container-image=x.sqsh", "--container-mounts=/data:/data,/scratch", f"--container-workdir={Path.cwd()}",
    ]  # fmt: skip
    assert sys.executable not in pyxis
    assert pyxis.count("python3") == 2
    image = Container("x.sif", "apptainer", mounts)
    inner = list(step_command(job, TWO, tmp_path, attempt=1, container=image).argv)
    expected = ["apptainer", "exec", "--nv", "--bind", "/data:/data", "--bind", "/scratch", "--pwd", str(Path.cwd())]
    assert inner[11:21] == [*expected, "x.sif"]


def test_each_attempt_meets_on_a_port_of_its_own(tmp_path: Path) -> None:
    def port(allocation: Allocation, attempt: int) -> str:
        argv = step_command(_job(tmp_path), allocation, tmp_path, attempt=attempt).argv
        return next(word for word in argv if word.startswith("--master-port="))

    requeued = Allocation("77", ("n1", "n2"), "10.0.0.1", restarts=1)
    assert port(TWO, 1) == port(TWO, 1)
    assert len({port(TWO, 1), port(TWO, 2), port(requeued, 1)}) == 3


class Told(Control):
    """A controller that notes what it is told."""

    def __init__(self, down: Sequence[str] = (), problems: Sequence[Problem] = ()) -> None:
        self.told: list[tuple[str, ...]] = []
        self._down, self._problems = list(down), tuple(problems)

    def check(self, nodes: Sequence[str], **_: object) -> Verdict:
        return Verdict(tuple(nodes), (), self._problems)

    def down(self, nodes: Sequence[str]) -> list[str]:
        return self._down

    def exclude(self, job_id: str, nodes: Sequence[str]) -> None:
        self.told.append(("exclude", job_id, *nodes))

    def cancel_pending(self, array_id: str) -> None:
        self.told.append(("cancel", array_id))

    def requeue(self, job_id: str, say: Callable[[str], None], without: Sequence[str] = ()) -> int:
        self.told.append(("requeue", job_id, *without))
        return EXIT_REQUEUE


class Ends(SlurmJob):
    """A job whose ranks have ended with a status."""

    status = EXIT_REQUEUE

    def _attempt(self, log_folder: Path, stop_after_seconds: float | None) -> Outcome:
        return Outcome(self.status, 0)


@pytest.fixture(autouse=True)
def _handlers_as_before():
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _ends(run: Path, status: int, allocation: Allocation, control: Control) -> int:
    job = Ends(_job(run), allocation, control, None)
    job.status = status
    return job.run()


def test_a_job_that_has_saved_is_requeued_but_not_without_end(tmp_path: Path, capfd) -> None:
    control = Told()
    for _ in range(3):
        assert _ends(tmp_path, EXIT_REQUEUE, TWO, control) == EXIT_REQUEUE
    assert control.told == [("requeue", "77")] * 3
    (tmp_path / "checkpoints" / "step_00000010").mkdir(parents=True)
    for _ in range(4):
        _ends(tmp_path, EXIT_REQUEUE, TWO, control)
    assert len(control.told) == 7, "a later checkpoint begins the count anew"
    _ends(tmp_path, EXIT_REQUEUE, TWO, control)
    assert len(control.told) == 7
    assert "4 starts in a row came to no later checkpoint, launch.max_restarts is 3; " in capfd.readouterr().err
    other = Allocation("78", ("n1", "n2"), "10.0.0.1")
    _ends(tmp_path, EXIT_REQUEUE, other, control)
    assert control.told[-1] == ("requeue", "78"), "each job counts for itself"


def test_what_needs_a_person_is_not_requeued(tmp_path: Path) -> None:
    for status in (EXIT_DONE, EXIT_USER_ERROR, EXIT_STOPPED):
        control = Told()
        assert _ends(tmp_path, status, TWO, control) == status
        assert control.told == []


def test_a_chain_goes_on_without_being_requeued_and_ends_where_a_person_is_needed(tmp_path: Path, capfd) -> None:
    control = Told()
    chain = [Allocation("77", ("n1", "n2"), "n1", 0, one, 2, array_id="76") for one in (1, 2)]
    assert _ends(tmp_path, EXIT_REQUEUE, chain[0], control) == EXIT_DONE
    assert _ends(tmp_path, EXIT_REQUEUE, chain[1], control) == EXIT_REQUEUE
    said = capfd.readouterr().err.splitlines()
    assert said[0] == "gptdist: step 0 of 600 is saved; the next job goes on"
    assert said[1].endswith("; the chain is at its end, the same command goes on")
    assert control.told == []
    assert _ends(tmp_path, EXIT_STOPPED, chain[0], control) == EXIT_STOPPED
    assert control.told == [("cancel", "76")]


def test_lost_nodes_are_left_out_of_the_next_start(tmp_path: Path) -> None:
    control = Told(down=["n2"])
    assert SlurmJob(_job(tmp_path), TWO, control, None).run() == EXIT_REQUEUE
    assert control.told == [("requeue", "77", "n2")]


def test_the_rest_of_a_chain_does_without_lost_nodes(tmp_path: Path) -> None:
    control = Told(down=["n2"])
    second = Allocation("78", ("n1", "n2"), "n1", 0, 2, 4, array_id="76")
    assert SlurmJob(_job(tmp_path), second, control, None).run() == EXIT_DONE
    assert control.told == [("exclude", "76_3", "n2"), ("exclude", "76_4", "n2")]


def test_a_controller_that_does_not_answer_has_lost_no_nodes(tmp_path: Path, monkeypatch) -> None:
    sinfo = tmp_path / "sinfo"
    sinfo.write_text("#!/bin/sh\necho 'slurm_load_node: Unable to contact slurm controller' >&2; exit 1\n")
    sinfo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert Control().down(["n1"]) == []
    sinfo.write_text("#!/bin/sh\necho 'n1 mixed\nn2 down*\nn3 idle*\nn4 draining\nn5 failing'\n")
    assert Control().down(["n1"]) == ["n2", "n3", "n5"]


def test_nodes_that_are_not_fit_are_left_out_unless_all_are_so(tmp_path: Path, capfd) -> None:
    clock = [Problem("clock", "is 90 s late; set it", node) for node in TWO.nodes]
    control = Told(problems=clock[1:])
    assert SlurmJob(_job(tmp_path), TWO, control, None).run() == EXIT_REQUEUE
    assert control.told == [("requeue", "77", "n2")]
    assert capfd.readouterr().err.splitlines() == [
        "gptdist: n2: clock: is 90 s late; set it",
        "gptdist: cannot go on with n2; the job goes on elsewhere",
    ]
    for problems in (clock, [Problem("folder", "is not writable")]):
        with pytest.raises(LaunchError, match=r"clock: is 90 s late|folder: is not writable"):
            SlurmJob(_job(tmp_path / "other"), TWO, Told(problems=problems), None).run()


def test_blame_goes_from_job_to_job(tmp_path: Path, capsys) -> None:
    job = SlurmJob(_job(tmp_path), TWO, Told(down=["n2"]), None)
    job.run()
    assert excluded(tmp_path) == {"n2": "Slurm says down, failing, or that it does not answer"}
    control = Told()
    assert SlurmJob(_job(tmp_path), TWO, control, None).run() == EXIT_REQUEUE, "it was given the node again"
    assert control.told == [("requeue", "77", "n2")]
    assert "#SBATCH --exclude=n7,n2\n" in _script(capsys, f"run_dir={tmp_path}", "--exclude=n7")
    blame(tmp_path, "n2", "mended", kind="forgiven")
    assert "--exclude" not in _script(capsys, f"run_dir={tmp_path}")


def test_a_node_on_which_ranks_die_twice_is_left_out(tmp_path: Path) -> None:
    died = Outcome(EXIT_FAILED, 5, (Failure("killed", 1, "n2", 0.0, 5, "step", "killed by SIGKILL"),))

    class Dies(Ends):
        attempts = 0

        def _attempt(self, log_folder: Path, stop_after_seconds: float | None) -> Outcome:
            self.attempts += 1
            return died

    control = Told()
    job = Dies(_job(tmp_path, "launch.restart_wait_seconds=0"), TWO, control, None)
    assert job.run() == EXIT_REQUEUE
    assert job.attempts == 2
    assert control.told == [("requeue", "77", "n2")]


def test_names_are_looked_at_where_ranks_meet_by_them(tmp_path: Path) -> None:
    unknown = [Problem("names", "does not know n1", "n2")]
    assert _ends(tmp_path, EXIT_DONE, TWO, Told(problems=unknown)) == EXIT_DONE
    by_name = Allocation("77", ("n1", "n2"), "n1")
    control = Told(problems=unknown)
    _ends(tmp_path, EXIT_DONE, by_name, control)
    assert control.told == [("requeue", "77", "n2")]


def test_a_run_that_is_done_ends_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write("start", step=0)
    ledger.write("done", step=600)
    assert SlurmJob(_job(tmp_path), TWO, Told(down=["n1"]), None).run() == EXIT_DONE
    longer = Told(down=["n1"])
    SlurmJob(_job(tmp_path, "training.train_steps=700"), TWO, longer, None).run()
    assert longer.told, "it is to go on to a later step"
