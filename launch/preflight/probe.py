"""What one node knows about itself: ``python -m launch.preflight.probe [NAME]``.

Reads a request as JSON on standard input and prints one line of JSON; so ssh, srun and kubectl can run it alike. All
nodes get the same request. It decides nothing, imports no torch, and leaves nothing but the file that shows others
that the run's folder is theirs too. NAME is how the others call this node; without, Slurm's name or the host's own.
"""

import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from gptdist.telemetry.software import code_digest, versions
from launch.preflight.code import config_digest
from launch.preflight.request import Request, answer_path, nonce_path

MAX_PEERS = 64
"""Names that a node looks up at most: a thousand nodes would ask the name server a million times at once."""

FACTS = (
    *("name", "began", "ended", "python", "versions", "code", "config", "names", "port", "interfaces", "folder"),
    *("locks", "leftovers", "is_building", "gpus"),
)
"""Keys of the answer."""

_SMI = ("nvidia-smi", "--query-gpu=index,name,ecc.errors.uncorrected.volatile.total", "--format=csv,noheader,nounits")
_SMI_SECONDS = 20


def main() -> None:
    """Answer the request on standard input."""
    request = Request.from_json(sys.stdin.read())
    print(json.dumps(facts(request, own_name(sys.argv[1:]))), flush=True)  # noqa: T201 - it is what is asked for


def own_name(arguments: list[str]) -> str:
    """Return how the others call this node."""
    return arguments[0] if arguments else os.environ.get("SLURMD_NODENAME", socket.gethostname())


def facts(request: Request, name: str) -> dict[str, Any]:
    """Return all that is asked about this node, which the others call ``name``, and by its clock when."""
    began = time.time()
    with ThreadPoolExecutor(1) as pool:
        devices = pool.submit(gpus)  # nvidia-smi takes long where the driver has to be loaded for it
        found = {
            "name": name,
            "python": python_version(),
            "versions": versions(request.packages),
            "code": code_digest(),
            "config": None if request.config_path is None else config_digest(Path(request.config_path)),
            "names": names(request, name),
            "port": port_trouble(request.port) if name == request.head else None,
            "interfaces": missing_interfaces(request.interfaces),
            "folder": None if request.run_folder is None else folder(Path(request.run_folder), request.nonce, name),
            "locks": locks(),
            **processes(request),
            "gpus": devices.result(),
        }
    return {**found, "began": began, "ended": time.time()}


def python_version() -> str:
    """Return the version of this Python."""
    return platform.python_version()


def names(request: Request, name: str) -> dict[str, str | None]:
    """Return the address of each host that matters to this one; None: the name is not known here.

    Its own is that of the name that it gives itself, for this is what gloo tells the others.
    """
    hosts = [host for host in request.hosts if host != name]
    if len(hosts) > MAX_PEERS:
        # Each name is looked up by as many nodes as each node looks up names, and the head's by all.
        place = request.hosts.index(name) if name in request.hosts else 0
        hosts = [request.head, *(hosts[(place + step) % len(hosts)] for step in range(MAX_PEERS))]
    asked = {name: socket.gethostname(), **{host: host for host in hosts if host != name}}
    with ThreadPoolExecutor(len(asked)) as pool:  # a name server that is down takes seconds to say so, of each
        return dict(zip(asked, pool.map(_address, asked.values()), strict=True))


def _address(name: str) -> str | None:
    try:
        # The first counts: gloo and torch's store take the first that they can use.
        return str(socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)[0][4][0])
    except OSError:
        return None


def is_loopback(address: str) -> bool:
    """Tell whether ``address`` leads back to the host that uses it."""
    return ip_address(address.partition("%")[0]).is_loopback


def port_trouble(port: int) -> str | None:
    """Return why no server can listen on ``port``; None: it can."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch's store does
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            probe.bind(("", port))
        except OSError as error:
            return str(error.strerror)
    return None


def missing_interfaces(wanted: Iterable[str]) -> list[str]:
    """Return those network interfaces that this node has not."""
    present = {name for _, name in socket.if_nameindex()}
    return [name for name in wanted if name not in present]


def folder(path: Path, nonce: str, name: str) -> dict[str, Any]:
    """Return what this node sees of the run's folder, and leave a file in it that the asker should see.

    ``nonce`` is what the asker's file holds; ``free_bytes`` what the file system has left for this user.
    """
    found: dict[str, Any] = {"nonce": None, "free_bytes": None, "error": None}
    try:
        found["nonce"] = nonce_path(path, nonce).read_text()
        answer_path(path, nonce, name).write_text(name)
        room = os.statvfs(path)
        found["free_bytes"] = room.f_bavail * room.f_frsize
    except OSError as error:
        found["error"] = f"{error.filename}: {error.strerror}"
    return found


def locks() -> list[dict[str, Any]]:
    """Return the locks in torch's cache of compiled extensions, each with its age in seconds."""
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR", f"{cache}/torch_extensions"))
    found = []
    for path in sorted([*root.glob("*/lock"), *root.glob("*/*/lock")]):
        try:
            found.append({"path": str(path), "age_seconds": time.time() - path.stat().st_mtime})
        except OSError:
            continue  # given back between the two looks
    return found


def processes(request: Request) -> dict[str, Any]:
    """Return processes of earlier launches of the run, and whether something is being compiled here."""
    own = os.environ.get(request.marker)
    leftovers, is_building = [], False
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_building |= (entry / "comm").read_text() == "ninja\n"
            value = _variable((entry / "environ").read_bytes(), request.marker)
            if value is None or value == own or request.run_folder is None:
                continue
            if Path(os.path.realpath(value)).is_relative_to(os.path.realpath(request.run_folder)):
                words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                command = b" ".join(words[:5]).decode(errors="replace")
                leftovers.append({"pid": int(entry.name), "command": command})
        except OSError:
            continue  # it has ended, or is another user's
    return {"leftovers": leftovers, "is_building": is_building}


def _variable(environment: bytes, name: str) -> str | None:
    start = f"{name}=".encode()
    values = [one.removeprefix(start) for one in environment.split(b"\0") if one.startswith(start)]
    return values[0].decode(errors="replace") if values else None


def gpus() -> dict[str, Any] | None:
    """Return what ``nvidia-smi`` says; None: it is not there, as on a machine without GPUs."""
    try:
        done = subprocess.run(_SMI, capture_output=True, text=True, timeout=_SMI_SECONDS, check=False)
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        return {"error": f"nvidia-smi does not answer within {_SMI_SECONDS} s", "devices": []}
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())
        return {"error": f"nvidia-smi ended with status {done.returncode} ({said[:200]})", "devices": []}
    return {"error": None, "devices": gpu_rows(done.stdout)}


def gpu_rows(text: str) -> list[dict[str, Any]]:
    """Return each GPU of the table that ``nvidia-smi`` prints; its ECC errors are None where it counts none."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    return [
        {"index": row[0], "kind": row[1], "uncorrected_errors": int(row[2]) if row[2].isdigit() else None}
        for row in rows
        if len(row) == 3
    ]


if __name__ == "__main__":
    main()
