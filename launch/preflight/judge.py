"""What is wrong with which node, from what each has said of itself; pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from launch.preflight.probe import FACTS, is_loopback
from launch.preflight.reach import Reply
from launch.preflight.request import Request
from launch.preflight.verdict import Problem

CLOCK_SECONDS = 2.0
"""Difference of clocks, beyond what the round trip leaves open, from which logs cannot be put in order any more: a
failure is blamed on the rank that wrote first."""

LOCK_SECONDS = 60.0
"""Age of a lock from which it is stale if nothing is being compiled anywhere."""

_ADVICE = {
    "code": "share the environment, or install the same",
    "config": "share the folder, or copy the file",
}
_MAX_NAMES = 3


@dataclass(frozen=True)
class Expected:
    """What the job needs of its nodes, and what the asker itself is."""

    code: str
    config: str | None
    versions: dict[str, str | None]
    python: str
    ranks_per_node: int = 1
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """``training.device``; auto is CUDA if any node has a GPU."""


@dataclass(frozen=True)
class Found:
    """Problems, and what the table shows of hosts without."""

    problems: tuple[Problem, ...]
    shown: dict[tuple[str, str], str]


def judge(replies: Sequence[Reply], request: Request, expected: Expected, seen: Iterable[str]) -> Found:
    """Return what the replies come to.

    Args:
        replies: of all hosts.
        request: that they answered.
        expected: of the job.
        seen: hosts whose file the asker has found in the run's folder.
    """
    others_code = [reply.host for reply in replies if reply.facts is not None and reply.facts.keys() != set(FACTS)]
    replies = [reply for reply in replies if reply.host not in others_code]
    answers = {reply.host: reply.facts for reply in replies if reply.facts is not None}
    problems = [Problem("code", "its code answers otherwise than this; install the same", host) for host in others_code]
    problems += [
        Problem("reach", reply.trouble.removeprefix(f"{reply.host}: "), reply.host)
        for reply in replies
        if reply.trouble is not None
    ]
    problems += _same(answers, expected)
    seen = set(seen)
    is_building = any(facts["is_building"] for facts in answers.values())
    for host, facts in answers.items():
        if len(request.hosts) > 1:
            problems += [Problem("names", text, host) for text in _names(host, facts)]
        problems += [Problem("port", text, host) for text in _network(facts, request)]
        problems += [Problem("folder", text, host) for text in _folder(facts, request, is_seen=host in seen)]
        problems += [] if is_building else [Problem("locks", text, host) for text in _locks(facts)]
        problems += [Problem("ranks", text, host) for text in _leftovers(facts)]
    needs_gpu = _needs_gpu(answers, expected)
    for host, facts in answers.items() if needs_gpu else ():
        problems += [Problem("device", text, host) for text in _devices(facts, expected.ranks_per_node)]
    problems += [Problem("clock", text, reply.host) for reply in replies if (text := _clock(reply)) is not None]
    return Found(tuple(problems), _shown(replies, request))


def _same(answers: dict[str, dict[str, Any]], expected: Expected) -> list[Problem]:
    """Return where a host is not as most of them; in a tie, as the asker."""
    problems = []
    own = _identity({**vars(expected)})
    of_hosts = {host: _identity(facts) for host, facts in answers.items()}
    for what, mine in own.items():
        values = {host: identity.get(what) for host, identity in of_hosts.items()}
        most = _majority(list(values.values()), mine)
        agreeing = sum(value == most for value in values.values())
        check = what if what in _ADVICE else "versions"
        advice = _ADVICE.get(what, "install the same")
        problems += [
            Problem(check, f"{what} is {value}, but {most} on {agreeing} of {len(values)} hosts; {advice}", host)
            for host, value in values.items()
            if value != most
        ]
    return problems


def _identity(facts: dict[str, Any]) -> dict[str, str | None]:
    """Return what has to be the same on all hosts."""
    return {name: facts[name] for name in ("code", "config", "python")} | facts["versions"]


def _majority(values: list[str | None], own: str | None) -> str | None:
    if not values:
        return own
    counts = Counter(values)
    most = max(counts.values())
    return own if counts.get(own) == most else next(value for value in values if counts[value] == most)


def _names(host: str, facts: dict[str, Any]) -> list[str]:
    addresses: dict[str, str | None] = facts["names"]
    own = addresses.get(host)
    problems = []
    if own is None:
        problems.append("does not know its own name; add it to /etc/hosts with the address that others reach")
    elif is_loopback(own):
        problems.append(
            f"its own name is {own}, which gloo would tell the others; give it the address that they reach (/etc/hosts)"
        )
    others = {name: address for name, address in addresses.items() if name != host}
    unknown = [name for name, address in others.items() if address is None]
    looped = [f"{name} ({address})" for name, address in others.items() if address is not None and is_loopback(address)]
    problems += [f"does not know {_some(unknown)}; mend its /etc/hosts or DNS"] if unknown else []
    problems += [f"takes {_some(looped)} for itself; mend its /etc/hosts or DNS"] if looped else []
    return problems


def _some(words: list[str]) -> str:
    more = f" and {len(words) - _MAX_NAMES} more" if len(words) > _MAX_NAMES else ""
    return ", ".join(words[:_MAX_NAMES]) + more


def _network(facts: dict[str, Any], request: Request) -> list[str]:
    problems = []
    if facts["port"] is not None:
        problems.append(f"{request.port} is taken ({facts['port']}); end what listens there, or choose another --port")
    if facts["interfaces"]:
        problems.append(f"has no interface {_some(facts['interfaces'])}; mend GLOO_SOCKET_IFNAME")
    return problems


def _folder(facts: dict[str, Any], request: Request, *, is_seen: bool) -> list[str]:
    folder = facts["folder"]
    if folder is None:
        return []
    if folder["nonce"] != request.nonce:
        return [
            f"{request.run_folder} is another folder there ({folder['error'] or 'another file'}); put the run on a "
            f"file system that all hosts mount at the same place"
        ]
    if folder["error"] is not None:
        return [f"{request.run_folder} cannot be written ({folder['error']}); mend its permissions or mount"]
    if not is_seen:
        return [f"what it writes to {request.run_folder} does not show here; put the run on one shared file system"]
    return []


def _locks(facts: dict[str, Any]) -> list[str]:
    return [
        f"{lock['path']}: stale for {lock['age_seconds'] / 60:.0f} min, every rank that needs it would hang; delete it"
        for lock in facts["locks"]
        if lock["age_seconds"] >= LOCK_SECONDS
    ]


def _leftovers(facts: dict[str, Any]) -> list[str]:
    left = facts["leftovers"]
    if not left:
        return []
    pids = " ".join(str(one["pid"]) for one in left)
    return [f"{len(left)} of this run still there ({left[0]['command']} …); wait until it is done, or: kill {pids}"]


def _needs_gpu(answers: dict[str, dict[str, Any]], expected: Expected) -> bool:
    if expected.device == "auto":
        return any(facts["gpus"] is not None and facts["gpus"]["devices"] for facts in answers.values())
    return expected.device == "cuda"


def _devices(facts: dict[str, Any], ranks_per_node: int) -> list[str]:
    if facts["gpus"] is None:
        return ["has no nvidia-smi, but the run needs GPUs; install the driver, or leave the host out"]
    if facts["gpus"]["error"] is not None:
        return [f"{facts['gpus']['error']}; reset or replace the GPU"]
    devices = facts["gpus"]["devices"]
    problems = [
        f"GPU {one['index']} ({one['kind']}): {one['uncorrected_errors']} uncorrected memory errors; reset it"
        for one in devices
        if one["uncorrected_errors"]
    ]
    if len(devices) < ranks_per_node:
        problems.append(
            f"has {len(devices)} GPUs, but launch.ranks_per_node is {ranks_per_node}; lower it, or leave the host out"
        )
    return problems


def clock_offset(reply: Reply) -> tuple[float, float]:
    """Return by how much a host's clock is ahead of the asker's, and the most that this can be off; seconds.

    It began after it was asked, and had ended before its answer was here: between the two bounds lies what ssh takes.
    """
    assert reply.facts is not None, "it has answered"
    most, least = reply.facts["began"] - reply.began, reply.facts["ended"] - (reply.began + reply.seconds)
    return (most + least) / 2, (most - least) / 2


def _clock(reply: Reply) -> str | None:
    if reply.facts is None:
        return None
    offset, error = clock_offset(reply)
    if abs(offset) - error <= CLOCK_SECONDS:
        return None
    return f"is {offset:+.1f} s (± {error:.1f}) from this machine's; let both follow the same time server"


def _shown(replies: Sequence[Reply], request: Request) -> dict[tuple[str, str], str]:
    shown = {}
    for reply in replies:
        if reply.facts is None:
            continue
        offset, error = clock_offset(reply)
        # That they differ at all is known only if zero is not within the bounds.
        shown[reply.host, "clock"] = f"{offset:+.1f}±{error:.1f} s" if abs(offset) > error else f"±{error:.1f} s"
        gpus = reply.facts["gpus"]
        devices = gpus["devices"] if gpus is not None else []
        shown[reply.host, "device"] = f"{len(devices)} x {devices[0]['kind']}" if devices else "cpu"
        if reply.host != request.head:
            shown[reply.host, "port"] = "-"
    return shown
