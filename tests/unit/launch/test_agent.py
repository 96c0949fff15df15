"""The agent looks after processes that beat like ranks, without torch; real ranks are in tests/e2e."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from gptdist.errors import EXIT_DONE, EXIT_FAILED, EXIT_REQUEUE, EXIT_STALLED, EXIT_STOPPED, TrainingError
from gptdist.telemetry.fence import make_current
from gptdist.telemetry.heartbeat import node_folder, node_name
from launch.agent import Agent, main, read_all_views, show_failure
from launch.job import NodeCommand
from launch.watch import Limits

RANK = """
import os, pathlib, signal, sys, time
from gptdist.telemetry.heartbeat import Heartbeat
from gptdist.telemetry.rank_log import open_log
beat = Heartbeat.of_environment(0)
open_log(pathlib.Path(os.environ["GPTDIST_LOG_DIR"]), 0)
def waits_for_ever():
    time.sleep(600)
"""
HANGS = RANK + "beat.step_done(4, 1.0); beat.enter('data'); waits_for_ever()"
STOPS = RANK + "signal.signal(signal.SIGTERM, lambda *_: (beat.enter('requeue'), sys.exit(0))); waits_for_ever()"
DONE = RANK + "print(os.environ['OMP_NUM_THREADS']); beat.enter('done')"


def command(folder: Path, code: str) -> NodeCommand:
    environment = {"GPTDIST_LOG_DIR": str(folder / "logs"), "GPTDIST_HEARTBEAT_DIR": str(folder / "beats")}
    return NodeCommand((sys.executable, "-c", code), tuple(environment.items()))


def test_a_rank_that_hangs_is_named_with_its_stack_and_ended(tmp_path: Path) -> None:
    said: list[str] = []
    outcome = Agent(command(tmp_path, HANGS), Limits(1.0, 30.0, 5.0), said.append).run()
    assert outcome.status == EXIT_STALLED
    assert outcome.first_failure is not None
    assert outcome.first_failure.heading() == f"rank 0 on {node_name()} made no progress, after step 4, in 'data'"
    assert "no progress within 1 s (launch.stall_seconds)" in outcome.first_failure.text
    assert "in waits_for_ever" in outcome.first_failure.text, "where it is"
    told = json.loads((tmp_path / "logs" / f"beats_{node_name()}.json").read_bytes())
    assert not psutil.pid_exists(told["ranks"][0][0]["pid"])
    assert not node_folder(str(tmp_path / "beats")).exists()
    show_failure(outcome, tmp_path / "logs", said.append)
    assert said[0].startswith(outcome.first_failure.heading())


def test_ranks_that_never_begin_are_ended_too(tmp_path: Path) -> None:
    outcome = Agent(command(tmp_path, "import time; time.sleep(600)"), Limits(60.0, 0.5, 5.0), print).run()
    assert outcome.status == EXIT_STALLED
    assert outcome.first_failure is not None
    assert "no rank has begun within 0.5 s (launch.startup_seconds)" in outcome.first_failure.text


def test_a_signal_reaches_the_ranks(tmp_path: Path) -> None:
    def stop() -> None:
        while not list(node_folder(str(tmp_path / "beats")).glob("rank_*")):
            time.sleep(0.05)
        time.sleep(0.3)  # its handler is set after that
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert Agent(command(tmp_path, STOPS), Limits(60.0, 60.0, 5.0), print).run().status == EXIT_REQUEUE


def test_what_does_not_stop_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun would end the ranks, if it were not itself what hangs."""
    monkeypatch.setattr("launch.agent.KILL_SECONDS", 1.0)

    def stop() -> None:
        while not list(node_folder(str(tmp_path / "beats")).glob("rank_*")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + RANK + "waits_for_ever()"
    assert Agent(command(tmp_path, deaf), Limits(60.0, 60.0, 0.5), print).run().status == EXIT_REQUEUE


def test_as_a_program_it_ends_with_its_input(tmp_path: Path) -> None:
    """Whoever started it by ssh may be gone; nothing else would end the ranks."""
    one = command(tmp_path, STOPS)
    limits = ["--stall-seconds=60", "--startup-seconds=60", "--shutdown-seconds=5", "--ranks=1", "--end-with-stdin"]
    with subprocess.Popen(
        [sys.executable, "-m", "launch.agent", *limits, "--", *one.argv],
        env={**os.environ, **dict(one.environment)},
        stdin=subprocess.PIPE,
    ) as agent:
        while not list(node_folder(str(tmp_path / "beats")).glob("rank_*")):
            assert agent.poll() is None
            time.sleep(0.05)
        time.sleep(0.3)
        assert agent.stdin is not None
        agent.stdin.close()
        assert agent.wait(60) == EXIT_REQUEUE


def test_letters_ask_for_a_stop_or_a_quick_end_and_signs_of_life_come_back(tmp_path: Path) -> None:
    listens = RANK + "; ".join(
        f"signal.signal(signal.{name}, lambda *_: (beat.enter('{phase}'), sys.exit(0)))"
        for name, phase in (("SIGINT", "stopped"), ("SIGUSR1", "requeue"))
    )
    for letter, status in (("I", EXIT_STOPPED), ("U", EXIT_REQUEUE), ("K", EXIT_FAILED)):
        one = command(tmp_path / letter, listens + "; waits_for_ever()")
        limits = ["--stall-seconds=60", "--startup-seconds=60", "--shutdown-seconds=5", "--ranks=1"]
        with subprocess.Popen(
            [sys.executable, "-m", "launch.agent", *limits, "--end-with-stdin", "--supervised", "--", *one.argv],
            env={**os.environ, **dict(one.environment)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as agent:
            while not list(node_folder(str(tmp_path / letter / "beats")).glob("rank_*")):
                assert agent.poll() is None
                time.sleep(0.05)
            time.sleep(0.3)  # its handlers are set after that
            assert agent.stdin is not None
            assert agent.stdout is not None
            agent.stdin.write(letter.encode())
            agent.stdin.flush()
            assert agent.wait(60) == status, letter
            assert set(agent.stdout.read()) == {0}
    assert not (tmp_path / "current").exists(), "whoever supervises says whose turn it is"


def test_an_agent_ends_when_another_launch_goes_on_with_the_run(tmp_path: Path) -> None:
    make_current(tmp_path / "launch_0009")
    assert Agent(command(tmp_path, HANGS), Limits(600.0, 600.0, 5.0), print).run().status == EXIT_FAILED


def test_who_is_not_supervised_makes_its_launch_the_current_one(tmp_path: Path) -> None:
    one = command(tmp_path, RANK + "beat.enter('done')")
    assert Agent(one, Limits(60.0, 60.0, 5.0), print, is_supervised=False).run().status == EXIT_DONE
    assert (tmp_path / "current").read_text() == "logs"


def test_threads_are_the_machines_cores_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = command(tmp_path, DONE)
    for name, value in one.environment:
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    limits = ["--stall-seconds=60", "--startup-seconds=60", "--shutdown-seconds=5", "--ranks=1"]
    assert main([*limits, "--", *one.argv]) == EXIT_DONE
    cores = len(os.sched_getaffinity(0))
    assert (
        main([*limits, "--", sys.executable, "-c", DONE + f"; assert os.environ['OMP_NUM_THREADS'] == '{cores}'"]) == 0
    )


def test_views_of_other_nodes_are_as_old_as_they_are(tmp_path: Path) -> None:
    beat = {"rank": 5, "pid": 1, "step": 3, "phase": "data", "since": 0.0, "work_seconds": 0.0, "progress": 1}
    told = {"node": "h9", "time": time.time() - 100.0, "ranks": [[beat, 20.0]]}
    (tmp_path / "beats_h9.json").write_text(json.dumps(told))
    (tmp_path / "beats_h8.json").write_text("{")
    (found,) = read_all_views(tmp_path, "h1", [])
    assert (found.node, found.beat.rank) == ("h9", 5)
    assert 120.0 <= found.seconds < 180.0


def test_a_folder_that_is_in_the_way_is_named(tmp_path: Path) -> None:
    node_folder(str(tmp_path / "beats")).symlink_to(tmp_path)
    with pytest.raises(TrainingError, match=r"beats-.*: cannot be made .*; remove what is there, or set TMPDIR"):
        Agent(command(tmp_path, DONE), Limits(60.0, 60.0, 5.0), print).run()
