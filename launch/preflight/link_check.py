"""Measure the links between the hosts that nothing else is wrong with."""

import json
from dataclasses import replace
from typing import Literal

from launch.preflight.link_plan import blame, links_of, plan_tree, rounds
from launch.preflight.reach import Reach
from launch.preflight.verdict import Problem, Verdict

LINK = "launch.preflight.link"
LINK_SECONDS = 300.0
"""After which a host that is still measuring has failed."""


def check_links(verdict: Verdict, reach: Reach, *, port: int, device: Literal["auto", "cpu", "cuda"]) -> Verdict:
    """Return the verdict with the links between its usable hosts, all of which take part at once.

    Args:
        verdict: of the other checks.
        reach: a way to the hosts.
        port: where each host serves those it is to meet.
        device: ``training.device``; cpu measures with gloo, else NCCL is used where there are GPUs.
    """
    hosts = verdict.usable
    if len(hosts) < 2:
        return replace(verdict, notes=(*verdict.notes, f"links: not measured, {len(hosts)} usable hosts have none"))
    schedule = rounds(hosts)
    plan = json.dumps({"rounds": plan_tree(schedule), "port": port, "device": device})
    replies = reach.ask(LINK, hosts, plan, timeout_seconds=LINK_SECONDS, parallel=len(hosts))
    links = links_of({reply.host: reply.facts["links"] for reply in replies if reply.facts}, schedule)
    problems = blame(links)
    named = {problem.host for problem in problems}
    problems += [
        Problem("link", reply.trouble.removeprefix(f"{reply.host}: "), reply.host)
        for reply in replies
        if reply.trouble is not None and reply.host not in named
    ]
    return replace(verdict, problems=(*verdict.problems, *problems), links=tuple(links))
