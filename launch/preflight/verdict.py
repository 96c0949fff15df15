"""What was found, host by check, and what it comes to."""

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import Any

CHECKS = ("reach", "code", "config", "versions", "names", "port", "clock", "folder", "locks", "ranks", "device", "link")
"""In the order of the table's columns."""

_MAX_ROWS = 32
"""Hosts that the table shows though nothing is wrong with them."""


@dataclass(frozen=True)
class Problem:
    """Something that has to be mended."""

    check: str
    text: str
    """Without the host's name: what is wrong, and what to do."""

    host: str | None = None
    """None: it is no single host's."""

    def line(self) -> str:
        """Return it as a line."""
        return f"{self.check}: {self.text}" if self.host is None else f"{self.host}: {self.check}: {self.text}"


@dataclass(frozen=True)
class Link:
    """What two hosts get through to each other."""

    hosts: tuple[str, str]
    gbit_per_second: float | None
    """Of an all-reduce between the two, as bytes of the buffer by time; None: it failed."""

    latency_us: float | None
    """Microseconds of an all-reduce of one number."""

    error: str | None = None

    def line(self) -> str:
        """Return it as a line."""
        between = f"link {self.hosts[0]} - {self.hosts[1]}: "
        if self.gbit_per_second is None or self.latency_us is None:
            return f"{between}failed ({self.error})"
        return f"{between}{self.gbit_per_second:.3g} Gbit/s, {self.latency_us:.0f} us"


@dataclass(frozen=True)
class Verdict:
    """All that was found."""

    hosts: tuple[str, ...]
    checks: tuple[str, ...]
    """Those that were made."""

    problems: tuple[Problem, ...]
    shown: dict[tuple[str, str], str] = field(default_factory=dict)
    """What the table shows of a host and a check instead of ok."""

    links: tuple[Link, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether a job can start on all of the hosts."""
        return not self.problems

    @property
    def excluded(self) -> dict[str, list[str]]:
        """Hosts that a job has to do without, each with the checks that it failed."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for problem in self.problems:
            if problem.host is not None and problem.check not in found[problem.host]:
                found[problem.host].append(problem.check)
        return {host: found[host] for host in self.hosts if host in found}

    @property
    def usable(self) -> tuple[str, ...]:
        """The other hosts."""
        return tuple(host for host in self.hosts if host not in self.excluded)

    def lines(self) -> list[str]:
        """Return the table, a line for each problem, and the verdict."""
        return [
            *self._table(),
            *(problem.line() for problem in self.problems),
            *self._link_lines(),
            self.line(),
        ]

    def line(self) -> str:
        """Return the verdict: PASS, or FAIL with what is left."""
        if self.passed:
            return f"PASS  {_count(len(self.hosts), 'host')}: {', '.join(self.checks)}"
        excluded = "; ".join(f"{host} ({', '.join(checks)})" for host, checks in self.excluded.items())
        general = sorted({problem.check for problem in self.problems if problem.host is None})
        parts = [
            f"usable: {', '.join(self.usable) or 'none'}",
            f"excluded: {excluded or 'none'}",
            *([f"of no single host: {', '.join(general)}"] if general else []),
        ]
        return f"FAIL  {'; '.join(parts)}"

    def tree(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "passed": self.passed,
            "usable": list(self.usable),
            "excluded": self.excluded,
            "checks": list(self.checks),
            "problems": [{"host": one.host, "check": one.check, "text": one.text} for one in self.problems],
            "links": [
                {
                    "hosts": list(link.hosts),
                    "gbit_per_second": link.gbit_per_second,
                    "latency_us": link.latency_us,
                    "error": link.error,
                }
                for link in self.links
            ],
        }

    def _table(self) -> list[str]:
        bad = self.excluded
        fine = [host for host in self.hosts if host not in bad]
        rows = [host for host in self.hosts if host in bad or len(fine) <= _MAX_ROWS]
        cells = [[host, *(self._cell(host, check) for check in self.checks)] for host in rows]
        cells.insert(0, ["host", *self.checks])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        return lines if len(rows) == len(self.hosts) else [*lines, f"{len(fine):,} others: ok"]

    def _cell(self, host: str, check: str) -> str:
        failed = self.excluded.get(host, [])
        if check in failed:
            return "FAIL"
        return "?" if "reach" in failed else self.shown.get((host, check), "ok")

    def _link_lines(self) -> list[str]:
        """Return the slowest link; those that failed are among the problems."""
        measured = sorted((speed, link.line()) for link in self.links if (speed := link.gbit_per_second) is not None)
        if not measured:
            return []
        middle = median(speed for speed, _ in measured)
        return [f"slowest {measured[0][1]}; median {middle:.3g} Gbit/s of {_count(len(measured), 'link')}"]


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")
