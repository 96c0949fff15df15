"""A rank does not outlive mpirun."""

import subprocess
import sys

import psutil

_RANK = "from gptdist.device.parent_death import die_with_mpirun; die_with_mpirun(); print(flush=True); input()"
_MPIRUN = """
import subprocess, sys, threading, time
started = []
def start(): started.append(subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=0, stdout=subprocess.PIPE))
thread = threading.Thread(target=start)
thread.start()
thread.join()
started[0].stdout.readline()
print(started[0].pid, flush=True)
time.sleep(600)
"""


def test_a_rank_ends_with_mpirun_and_not_with_the_thread_that_started_it() -> None:
    argv = [sys.executable, "-c", _MPIRUN, _RANK]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mpirun:
        assert mpirun.stdout is not None
        rank = psutil.Process(int(mpirun.stdout.readline()))
        _, alive = psutil.wait_procs([rank], timeout=2)
        assert alive, "it ended while mpirun was there"
        mpirun.kill()
        _, alive = psutil.wait_procs([rank], timeout=30)
        for one in alive:
            one.kill()
        assert not alive
