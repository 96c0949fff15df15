"""What the script of a job of Slurm asks the controller, and has it do."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gptdist.config.run import RunConfig
from gptdist.durable import write_whole
from gptdist.errors import EXIT_REQUEUE, LaunchError
from launch.preflight.check import check_nodes
from launch.preflight.reach import UnderSrun
from launch.preflight.verdict import Verdict
from launch.slurm import LAUNCH_NAME

REQUEUE_SECONDS = 60.0
"""How long Slurm may take to end a job that it has agreed to requeue."""

_GONE = re.compile(r"down|fail|.*\*")
"""States of a node on which nothing can be started: a star is one that does not answer."""


class Control:
    """Calls ``scontrol``, ``sinfo``, ``scancel`` and ``srun``."""

    def hostnames(self, listed: str) -> tuple[str, ...]:
        """Return the nodes of a list such as ``node[1-4,7]``, in order."""
        return tuple(_output("scontrol", "show", "hostnames", listed).split())

    def address(self, node: str) -> str:
        """Return the address at which Slurm itself reaches ``node``; its name, unless the cluster says otherwise."""
        found = re.search(r"\bNodeAddr=(\S+)", _output("scontrol", "show", "node", node, "--oneliner"))
        return found[1] if found else node

    def down(self, nodes: Sequence[str]) -> list[str]:
        """Return which of ``nodes`` are gone; none, where the controller itself does not answer."""
        try:
            states = _output("sinfo", "--noheader", "--Node", f"--nodes={','.join(nodes)}", "--format=%N %T")
        except LaunchError:
            return []
        found = [line.split() for line in states.splitlines()]
        return sorted({name for name, state in found if _GONE.match(state.lower())})

    def check(self, nodes: Sequence[str], *, port: int, config: RunConfig, config_path: Path) -> Verdict:
        """Look at the nodes of the job that this process is in, by one step for all; see ``gptdist doctor``."""
        return check_nodes(nodes, UnderSrun(), port=port, config=config, config_path=config_path)

    def cancel_pending(self, array_id: str) -> None:
        """Cancel what has not begun of a chain."""
        subprocess.run(["scancel", "--state=PENDING", array_id], check=False)

    def requeue(self, job_id: str, say: Callable[[str], None], without: Sequence[str] = ()) -> int:
        """Have the job run again, on none of the nodes ``without``, and wait to be ended for it.

        Returns the status to end with, if that does not come.
        """
        # Slurm changes the nodes of a job only once it is queued, when all that it has started is being ended: what is
        # ignored here is by scontrol, too.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        state = self._fact(job_id, "JobState")
        if state != "RUNNING":  # somebody has cancelled it, or Slurm requeues it by itself
            say(f"job {job_id} is not requeued: Slurm is ending it ({state}); the same command goes on")
            return EXIT_REQUEUE
        done = subprocess.run(["scontrol", "requeue", job_id], capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            say(f"Slurm does not requeue job {job_id} ({reason}); the same command goes on")
            return EXIT_REQUEUE
        say(f"job {job_id} is requeued")
        if without:
            self.exclude(job_id, without)
            return EXIT_REQUEUE
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(REQUEUE_SECONDS)
        return EXIT_REQUEUE

    def exclude(self, job_id: str, nodes: Sequence[str]) -> None:
        """Keep a job in the queue off ``nodes``, and off those that it is kept off already."""
        before = self._fact(job_id, "ExcNodeList")
        excluded = ",".join([*([] if before == "(null)" else [before]), *nodes])
        subprocess.run(["scontrol", "update", f"JobId={job_id}", f"ExcNodeList={excluded}"], check=False)

    def _fact(self, job_id: str, name: str) -> str:
        found = re.search(rf"\b{name}=(\S+)", _output("scontrol", "show", "job", job_id, "--oneliner"))
        return found[1] if found else "(null)"

    def vain_ends(self, run: Path, job_id: str, saved_step: int) -> int:
        """Note that the job ends with ``saved_step`` saved; return how often in a row it ended no later than before."""
        path = run / LAUNCH_NAME / f"slurm_{job_id}.json"
        try:
            before = json.loads(path.read_bytes())
        except (OSError, ValueError):
            before = {"saved_step": 0, "vain": 0}
        vain = before["vain"] + 1 if saved_step <= before["saved_step"] else 0
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"saved_step": saved_step, "vain": vain}).encode())
        return int(vain)


def _output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LaunchError([f"{' '.join(argv)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}"])
    return done.stdout
