"""Which pairs of hosts are measured when, and which host is to blame for slow ones; pure.

Each host is measured with its neighbours in two rings, so with up to four others: a slow host shows in all of its
links, an innocent neighbour in one of its only.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from launch.preflight.verdict import Link, Problem

SLOW_FRACTION = 0.5
"""Of the median, from which a host or a link is slow; links of one kind differ by some percent."""


@dataclass(frozen=True)
class Meeting:
    """Two hosts measure the link between them; they meet at the first one's store."""

    first: str
    second: str


def rounds(between: Iterable[tuple[str, str]]) -> list[list[Meeting]]:
    """Return the meetings of each round; in a round a host has one at most, and all run at the same time."""
    found: list[list[Meeting]] = []
    busy: list[set[str]] = []
    for first, second in between:
        number = next((place for place, taken in enumerate(busy) if not taken & {first, second}), len(found))
        if number == len(found):
            found.append([])
            busy.append(set())
        found[number].append(Meeting(first, second))
        busy[number] |= {first, second}
    return found


def pairs(hosts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of neighbours in two rings: hosts in order, and with those far off in the order."""
    count = len(hosts)
    far = count // 2 - 1 if count % 2 == 0 and count >= 6 else count // 2
    found: dict[frozenset[str], tuple[str, str]] = {}
    for stride in (1, far):
        for place, host in enumerate(hosts):
            other = hosts[(place + stride) % count]
            if other != host:
                found.setdefault(frozenset((host, other)), (host, other))
    return list(found.values())


def blame(links: Iterable[Link], fraction: float = SLOW_FRACTION) -> list[Problem]:
    """Return the hosts that are slow or not reached over all of their links, and other slow links.

    A host is judged by its best link, against the median of all hosts' best: half of the links of few hosts may be
    slow because of a single one. Of two hosts none is slower than the other.
    """
    links = list(links)
    of_host: defaultdict[str, list[Link]] = defaultdict(list)
    for link in links:
        for host in link.hosts:
            of_host[host].append(link)
    best, usual = _best(links), _usual(links)
    slow = {host for host, speed in best.items() if speed < fraction * usual}
    problems = [_slow_host(host, best[host], usual, of_host[host]) for host in best if host in slow]
    for link in suspects(links, fraction):
        if slow & set(link.hosts):
            continue
        if link.gbit_per_second is None:
            problems.append(Problem("link", f"{link.line()}; neither host is known to be at fault"))
        else:
            problems.append(
                Problem("link", f"{link.line()}, median {usual:.3g}; both hosts are faster with others: see the path")
            )
    return problems


def suspects(links: Sequence[Link], fraction: float = SLOW_FRACTION) -> list[Link]:
    """Return the links that failed or are slow."""
    return [link for link in links if link.gbit_per_second is None or link.gbit_per_second < fraction * _usual(links)]


def better(links: Sequence[Link], again: Sequence[Link]) -> list[Link]:
    """Return the links, each with its better measurement of two where there are two."""
    second = {link.hosts: link for link in again}
    return [max(link, second.get(link.hosts, link), key=_speed) for link in links]


def _best(links: Sequence[Link]) -> dict[str, float]:
    """Return the speed of each host's best link."""
    best: dict[str, float] = {}
    for link in links:
        for host in link.hosts:
            best[host] = max(best.get(host, 0.0), _speed(link))
    return best


def _usual(links: Sequence[Link]) -> float:
    best = _best(links)
    return median(best.values()) if best else 0.0


def _speed(link: Link) -> float:
    return 0.0 if link.gbit_per_second is None else link.gbit_per_second


def _slow_host(host: str, speed: float, usual: float, links: Sequence[Link]) -> Problem:
    if speed == 0.0:
        return Problem("link", f"no all-reduce with any of {len(links)} other hosts ({links[0].error})", host)
    return Problem(
        "link",
        f"{speed:.3g} Gbit/s at best with {len(links)} others, median of hosts {usual:.3g}; see its cable and card",
        host,
    )


def links_of(measured: Mapping[str, Mapping[str, object]], meetings: Iterable[Meeting]) -> list[Link]:
    """Return a link for each meeting of a round, from what its first host says."""
    return [_link(one, measured.get(one.first, {"error": f"{one.first} says nothing"})) for one in meetings]


def _link(meeting: Meeting, said: Mapping[str, object]) -> Link:
    between = (meeting.first, meeting.second)
    speed, latency = said.get("gbit_per_second"), said.get("latency_us")
    if isinstance(speed, float) and isinstance(latency, float):
        return Link(between, speed, latency)
    return Link(between, None, None, str(said.get("error")))
