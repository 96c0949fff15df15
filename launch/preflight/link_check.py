"""Measure the links between the hosts that nothing else is wrong with."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from launch.preflight.link_plan import Meeting, better, blame, links_of, pairs, rounds, suspects
from launch.preflight.reach import Reach
from launch.preflight.verdict import Link, Problem, Verdict

LINK = "launch.preflight.link"
LINK_SECONDS = 180.0
"""After which a host that is still measuring has failed: twice its patience with the other, and some."""


def check_links(verdict: Verdict, reach: Reach, *, port: int, device: Literal["auto", "cpu", "cuda"]) -> Verdict:
    """Return the verdict with the links between its usable hosts.

    Each round starts afresh, so that a host that has waited in vain for another is not late for the next. What failed
    or is slow is measured once more, now that all others are at rest, and the better measurement counts.

    Args:
        verdict: of the other checks.
        reach: a way to the hosts.
        port: where the first host of each meeting serves the other.
        device: ``training.device``; cpu measures with gloo, else NCCL is used where there are GPUs.
    """
    links = _Links(reach, port, device)
    measured = links.measure(pairs(verdict.usable))
    measured = better(measured, links.measure(link.hosts for link in suspects(measured)))
    between_others = [link for link in measured if not links.failed.keys() & set(link.hosts)]
    problems = [*(Problem("link", text, host) for host, text in links.failed.items()), *blame(between_others)]
    return replace(verdict, problems=(*verdict.problems, *problems), links=tuple(measured))


class _Links:
    """Measures links, without hosts that have failed once."""

    def __init__(self, reach: Reach, port: int, device: str) -> None:
        self.failed: dict[str, str] = {}
        """Hosts that did not answer, and why."""
        self._reach, self._port, self._device = reach, port, device

    def measure(self, between: Iterable[tuple[str, str]]) -> list[Link]:
        """Return the links between these hosts."""
        found: list[Link] = []
        for meetings in rounds(between):
            found += self._round([one for one in meetings if not self.failed.keys() & {one.first, one.second}])
        return found

    def _round(self, meetings: list[Meeting]) -> list[Link]:
        hosts = [host for one in meetings for host in (one.first, one.second)]
        if not hosts:
            return []
        pairs_met = [[one.first, one.second] for one in meetings]
        request = json.dumps({"meetings": pairs_met, "port": self._port, "device": self._device})
        replies = self._reach.ask(LINK, hosts, request, timeout_seconds=LINK_SECONDS, parallel=len(hosts))
        for reply in replies:
            if reply.trouble is not None:
                self.failed[reply.host] = reply.trouble.removeprefix(f"{reply.host}: ")
        return links_of({reply.host: reply.facts for reply in replies if reply.facts is not None}, meetings)
