"""Hosts on this machine, for as long as a test needs them: each with its network, processes, mounts and sshd.

A host is a set of namespaces (network, UTS, PID, mount, IPC); they hang on a bridge in a network namespace of its own.
Namespaces have no names, so that any number of clusters run side by side; they are gone with their processes, and these
with the test, even one that is killed. Of the machine's own network nothing is touched, of its files only the folder
that is given, and ``/root/.ssh`` is made if it is not there. All hosts share the machine's files, as if everything was
on a shared file system, but for ``/run``, ``/dev/shm`` and ``/mnt``, which each has for itself.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gptdist.device.parent_death import die_with_parent

PROGRAMS = ("sshd", "ssh", "ssh-keygen", "ip", "tc", "nsenter", "unshare", "setpriv")
LOGIN = "login"
NODE_LOCAL = Path("/mnt")
"""A folder that each host has for itself; from outside it is ``Cluster.local(host)``."""

_NETWORK = "10.77.0"
_START_SECONDS = 30
_NAMESPACES = ("--net", "--uts", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")

_BOOT = """
set -e
echo {name} > /proc/sys/kernel/hostname
mount --bind {folder}/hostname /etc/hostname
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/nsswitch.conf /etc/nsswitch.conf
mount --bind {ssh} /root/.ssh
mount --bind {folder}/local /mnt
mount -t tmpfs -o size=2g tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 755 /run/sshd
read -r go
exec {sshd} -D -e -f {folder}/sshd_config
"""
"""What the first process of a host does; it waits for a line that says that the network is there."""

_SSHD = """
ListenAddress {address}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {ssh}/authorized_keys
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 200
MaxSessions 200
"""


def missing_programs() -> list[str]:
    """Return what hosts need and this machine has not (Debian: openssh-server, iproute2)."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return missing
    if os.geteuid() != 0:
        return ["root"]
    tried = ["unshare", *_NAMESPACES, "ip", "link", "add", "br0", "type", "bridge"]
    return [] if subprocess.run(tried, capture_output=True, check=False).returncode == 0 else ["network namespaces"]


@contextlib.contextmanager
def hosts(folder: Path, count: int = 2) -> Iterator["Cluster"]:
    """Start ``node1`` … and ``login``, with their files in ``folder``; root may go from each to each by ssh."""
    Path("/root/.ssh").mkdir(mode=0o700, exist_ok=True)  # something to mount on; ssh itself would make it too
    cluster = Cluster(folder, [f"node{number + 1}" for number in range(count)])
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Cluster:
    """Hosts that are running."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        self.names = names
        """Of the workers; there is a host ``login`` besides."""
        self.known_hosts = folder / "ssh" / "known_hosts"
        self._switch: subprocess.Popen[bytes] | None = None
        self._hosts: dict[str, subprocess.Popen[bytes]] = {}
        self._first: dict[str, int] = {}
        """The first process of each host, by its number outside."""

    @property
    def all_names(self) -> list[str]:
        return [*self.names, LOGIN]

    def address(self, host: str) -> str:
        return f"{_NETWORK}.{10 + self.all_names.index(host)}"

    def host_folder(self, host: str) -> Path:
        """Folder with a host's files: sshd.log, hosts (its /etc/hosts) and so on."""
        return self.folder / host

    def local(self, host: str) -> Path:
        """Folder that ``host`` has as NODE_LOCAL, for a look from outside."""
        return self.host_folder(host) / "local"

    def start(self) -> None:
        ssh = self.folder / "ssh"
        ssh.mkdir(mode=0o700)
        _make_key(ssh / "id_ed25519")
        shutil.copy(ssh / "id_ed25519.pub", ssh / "authorized_keys")
        for host in self.all_names:
            self._write_files(host)
        self.known_hosts.write_text("".join(self._known(host, self._public_key(host)) for host in self.all_names))
        switch = ["unshare", "--net", "sleep", "infinity"]
        self._switch = subprocess.Popen(switch, preexec_fn=_dying_with_us())  # noqa: PLW1509 - as in boot
        _wait(lambda: _namespace(os.getpid()) != _namespace(self._switch_pid), "the switch has no network")
        self._ip(self._switch_pid, "link add br0 type bridge", "link set br0 up")
        self.boot(*self.all_names)

    def _write_files(self, host: str) -> None:
        folder = self.host_folder(host)
        (folder / "local").mkdir(parents=True)
        _make_key(folder / "host_key")
        lines = [f"{self.address(other)} {other}" for other in self.all_names]
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        (folder / "hostname").write_text(f"{host}\n")
        (folder / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files\n")
        places = {"folder": folder, "ssh": self.folder / "ssh"}
        (folder / "sshd_config").write_text(_SSHD.format(address=self.address(host), **places))
        (folder / "boot.sh").write_text(_BOOT.format(name=host, sshd=shutil.which("sshd"), **places))

    def _public_key(self, host: str) -> str:
        return (self.host_folder(host) / "host_key.pub").read_text()

    def _known(self, host: str, key: str) -> str:
        return f"{host},{self.address(host)} {' '.join(key.split()[:2])}\n"

    def boot(self, *names: str) -> None:
        """Switch on hosts that are off, and wait for their sshd."""
        for host in names:
            folder = self.host_folder(host)
            with (folder / "sshd.log").open("wb") as log:
                self._hosts[host] = subprocess.Popen(
                    ["unshare", *_NAMESPACES, "sh", str(folder / "boot.sh")],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    preexec_fn=_dying_with_us(),  # noqa: PLW1509 - takes no lock that a thread could hold
                )
        for host in names:
            self._first[host] = self._first_process(host)
            self._plug_in(host)
            go = self._hosts[host].stdin
            assert go is not None
            go.write(b"go\n")
            go.close()
        for host in names:
            _wait(partial(self._listens, host), f"sshd of {host} does not listen", self.host_folder(host) / "sshd.log")

    def _first_process(self, host: str) -> int:
        outer = self._hosts[host]
        _wait(lambda: bool(_children(outer.pid)), f"{host} has no process", self.host_folder(host) / "sshd.log")
        return _children(outer.pid)[0]

    def _plug_in(self, host: str) -> None:
        first, port = self._first[host], f"to-{host}"
        # The same hardware address after every boot: peers that still know it need not ask again.
        hardware = f"02:00:00:00:00:{10 + self.all_names.index(host):02x}"
        self._ip(
            self._switch_pid,
            f"link add {port} type veth peer name eth0 address {hardware} netns {first}",
            f"link set {port} master br0",
            f"link set {port} up",
        )
        self._ip(first, "link set lo up", "link set eth0 up", f"addr add {self.address(host)}/24 dev eth0")

    def _listens(self, host: str) -> bool:
        return "Server listening" in (self.host_folder(host) / "sshd.log").read_text()

    @property
    def _switch_pid(self) -> int:
        assert self._switch is not None
        return self._switch.pid

    def _ip(self, pid: int, *commands: str) -> None:
        argv = ["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"]
        subprocess.run(argv, input="\n".join(commands), text=True, check=True)

    def stop(self) -> None:
        """Switch everything off."""
        for host in list(self._hosts):
            self._power_off(host)
        if self._switch is not None:
            self._switch.kill()
            self._switch.wait()

    def _power_off(self, host: str) -> None:
        outer = self._hosts.pop(host)
        first = self._first.pop(host, None)
        if first is not None and outer.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)  # the kernel ends every process of the host with it
        outer.kill()
        outer.wait()

    def _inside(self, host: str, argv: Sequence[str], cwd: Path) -> list[str]:
        enter = [
            "nsenter",
            "-t",
            str(self._first[host]),
            "-m",
            "-u",
            "-i",
            "-n",
            "-p",
            "setpriv",
            "--pdeathsig",
            "KILL",
        ]
        return [*enter, "env", "-C", str(cwd), *map(str, argv)]

    def run(
        self,
        host: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on ``host`` to its end and return what it wrote; ``env`` is added to this process's."""
        options = {"capture_output": True, "text": True, **options}
        cwd = options.pop("cwd", Path.cwd())
        merged = {**os.environ, **(env or {})}
        return subprocess.run(self._inside(host, argv, cwd), check=False, env=merged, timeout=timeout, **options)

    def popen(
        self, host: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a command on ``host``; a signal goes to it by ``send_signal`` of this cluster, not the process's."""
        cwd = options.pop("cwd", Path.cwd())
        return subprocess.Popen(self._inside(host, argv, cwd), env={**os.environ, **(env or {})}, **options)

    def send_signal(self, process: subprocess.Popen[Any], number: int) -> None:
        """Send a signal to the command that ``popen`` started; nsenter, which waits for it, would not pass it on."""
        os.kill(_children(process.pid)[0], number)

    def processes(self, host: str) -> dict[int, str]:
        """Return the command line of every process on ``host`` by its number outside, sshd's own left out."""
        found = {}
        namespace = _namespace(self._first[host], "pid")
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if _namespace(int(entry.name), "pid") == namespace:
                    words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                    found[int(entry.name)] = b" ".join(words).decode(errors="replace")
        return {pid: line for pid, line in found.items() if line and "sshd" not in line.split()[0]}

    def cut(self, host: str) -> None:
        """Pull the plug of a host's network; the host goes on."""
        self._ip(self._switch_pid, f"link set to-{host} down")

    def heal(self, host: str) -> None:
        self._ip(self._switch_pid, f"link set to-{host} up")

    def crash(self, host: str) -> None:
        """Switch a host off: its processes are gone, and none of its peers is told."""
        self._ip(self._switch_pid, f"link del to-{host}")
        self._power_off(host)

    def limit(self, host: str, *, mbit_per_second: float) -> None:
        """Make a host's link slow, both ways."""
        words = ["tbf", "rate", f"{mbit_per_second}mbit", "burst", "256kb", "latency", "100ms"]
        for pid, device in ((self._switch_pid, f"to-{host}"), (self._first[host], "eth0")):
            tc = ["nsenter", "-t", str(pid), "-n", "tc", "qdisc", "replace", "dev", device, "root", *words]
            subprocess.run(tc, check=True)

    def unlimit(self, host: str) -> None:
        """Make its link as fast as before."""
        for pid, device in ((self._switch_pid, f"to-{host}"), (self._first[host], "eth0")):
            tc = ["nsenter", "-t", str(pid), "-n", "tc", "qdisc", "del", "dev", device, "root"]
            subprocess.run(tc, check=True)

    def resolve(self, host: str, name: str, address: str | None) -> None:
        """Let ``name`` be ``address`` on ``host``; None: unknown there."""
        path = self.host_folder(host) / "hosts"
        lines = [line for line in path.read_text().splitlines() if line.split()[1:] != [name]]
        lines += [] if address is None else [f"{address} {name}"]
        path.write_text("\n".join([*lines, ""]))

    def forget_key(self, host: str) -> None:
        """Let no one know the key of ``host``."""
        self._replace_key(host, "")

    def forge_key(self, host: str) -> None:
        """Let everyone expect another key of ``host`` than it has."""
        other = next(name for name in self.all_names if name != host)
        self._replace_key(host, self._known(host, self._public_key(other)))

    def remember_key(self, host: str) -> None:
        """Let everyone know it as it is."""
        self._replace_key(host, self._known(host, self._public_key(host)))

    def _replace_key(self, host: str, line: str) -> None:
        kept = [known for known in self.known_hosts.read_text().splitlines() if not known.startswith(f"{host},")]
        self.known_hosts.write_text("\n".join([*kept, line]))


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _dying_with_us() -> Callable[[], None]:
    return partial(die_with_parent, os.getpid())


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _namespace(pid: int, kind: str = "net") -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def _wait(condition: Callable[[], bool], trouble: str, log: Path | None = None) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{trouble} after {_START_SECONDS} s\n{log.read_text() if log else ''}")
        time.sleep(0.02)
