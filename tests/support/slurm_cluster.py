"""A Slurm cluster of one controller and two daemons on this machine, for as long as a test needs it.

Jobs of the partition ``urgent`` preempt those of ``all``, which are told by their own signal and have a minute.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")
NODES = 2
_START_SECONDS = 30

_CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MinJobAge=10
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first_port}-{last_port}] CPUs=2 RealMemory=2000
PartitionName=all Nodes=ALL Default=YES MaxTime=60 PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=60 PriorityTier=2 PreemptMode=OFF
"""


def missing_programs() -> list[str]:
    """Return what is not installed here (Debian: slurmctld, slurmd, slurm-client, munge)."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return missing if missing or os.geteuid() == 0 else ["root"]


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[Path]:
    """Start the cluster with its files in ``folder``; yield its slurm.conf, which SLURM_CONF has to name."""
    config = _write_config(folder)
    environment = {**os.environ, "SLURM_CONF": str(config)}
    munge = ["munged", "--force", "--foreground", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket"]
    munge += [f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munged.log"]
    daemons = [munge, ["slurmctld", "-D", "-c"], *(["slurmd", "-D", "-N", f"n{node + 1}"] for node in range(NODES))]
    running = []
    try:
        for command in daemons:
            running.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            time.sleep(0.3)
        _wait_until_idle(environment, folder)
        yield config
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _write_config(folder: Path) -> Path:
    folder.chmod(0o755)  # munged refuses a socket that others cannot reach
    (folder / "state").mkdir()
    for node in range(NODES):
        (folder / f"spool.n{node + 1}").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    first = _free_port()
    config = folder / "slurm.conf"
    config.write_text(
        _CONFIG.format(
            host=socket.gethostname(),
            folder=folder,
            nodes=NODES,
            controller_port=_free_port(),
            first_port=first,
            last_port=first + NODES - 1,
        )
    )
    return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        seen = subprocess.run(
            ["sinfo", "-h", "-t", "idle", "-o", "%D"], env=environment, capture_output=True, text=True, check=False
        )
        if seen.stdout.strip() == str(NODES):
            return
        time.sleep(0.3)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(folder.glob("*.log")))
    raise RuntimeError(f"Slurm did not come up in {_START_SECONDS} s:\n{logs}")
