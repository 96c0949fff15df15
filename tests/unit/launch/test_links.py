"""Which pairs of hosts are measured, and who is to blame for what comes out."""

import itertools
import json
from collections.abc import Sequence, Set
from dataclasses import replace

import pytest

from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from gptdist.model.checkpoint_size import checkpoint_bytes
from launch.preflight.disk import kept_checkpoints, room_problem
from launch.preflight.link_check import check_links
from launch.preflight.link_plan import Meeting, better, blame, links_of, pairs, rounds, suspects
from launch.preflight.reach import Reply
from launch.preflight.verdict import Link, Verdict
from tests.support.ranks import repository

DEMO = repository() / "configs" / "runs" / "demo-cpu.yaml"


def _hosts(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 16, 33, 1024])
def test_rounds_are_of_disjoint_pairs_and_each_host_has_others(count: int) -> None:
    schedule = rounds(pairs(_hosts(count)))
    for meetings in schedule:
        names = [name for meeting in meetings for name in (meeting.first, meeting.second)]
        assert len(names) == len(set(names)), "a host is in two meetings at once"
    met = {frozenset((meeting.first, meeting.second)) for meetings in schedule for meeting in meetings}
    assert met == {frozenset(pair) for pair in pairs(_hosts(count))}
    assert len(met) == sum(map(len, schedule)), "a pair meets twice"
    peers = min(4, count - 1)
    assert all(sum(host in pair for pair in met) == peers for host in _hosts(count))
    assert len(schedule) <= 2 * peers - 1 or count == 2


def _measured(count: int, slow: set[str], broken: frozenset[str] = frozenset()) -> list[Link]:
    links = []
    for first, second in pairs(_hosts(count)):
        if broken & {first, second}:
            links.append(Link((first, second), None, None, "timed out"))
        else:
            links.append(Link((first, second), 1.0 if slow & {first, second} else 10.0, 50.0))
    return links


@pytest.mark.parametrize(("count", "slow"), [(3, 1), (4, 0), (5, 4), (8, 3), (64, 60)])
def test_a_slow_host_is_blamed_and_none_of_its_neighbours(count: int, slow: int) -> None:
    assert [problem.host for problem in blame(_measured(count, {f"n{slow}"}))] == [f"n{slow}"]
    (broken,) = blame(_measured(count, set(), frozenset({f"n{slow}"})))
    assert broken.host == f"n{slow}"
    assert broken.text.startswith("no all-reduce with any of ")


def test_two_slow_hosts_beside_each_other() -> None:
    assert {problem.host for problem in blame(_measured(8, {"n3", "n4"}))} == {"n3", "n4"}


def test_a_slow_or_broken_path_between_two_good_hosts_is_neithers_fault() -> None:
    links = _measured(5, set())
    slow = [Link(links[0].hosts, 2.0, 50.0), *links[1:]]
    assert [problem.line() for problem in blame(slow)] == [
        "link: link n0 - n1: 2 Gbit/s, 50 us, median 10; both hosts are faster with others: see the path"
    ]
    broken = [Link(links[0].hosts, None, None, "timed out"), *links[1:]]
    assert [problem.line() for problem in blame(broken)] == [
        "link: link n0 - n1: failed (timed out); neither host is known to be at fault"
    ]


def test_of_two_hosts_the_speed_is_told_and_no_one_blamed() -> None:
    assert blame(_measured(2, {"n0"})) == []
    (problem,) = blame([Link(("n0", "n1"), None, None, "timed out")])
    assert problem.host is None


def test_differences_of_some_percent_are_no_fault() -> None:
    speeds = itertools.cycle([10.0, 9.0, 8.0, 7.0])
    links = [Link(pair, next(speeds), 50.0) for pair in pairs(_hosts(16))]
    assert blame(links) == []
    lines = Verdict(tuple(_hosts(16)), ("link",), (), links=tuple(links)).lines()
    assert lines[-2].startswith("slowest link n")
    assert lines[-2].endswith(": 7 Gbit/s, 50 us; median 8.5 Gbit/s of 32 links")


def test_of_two_measurements_the_better_counts() -> None:
    links = _measured(5, {"n1"}, frozenset({"n3"}))
    doubtful = suspects(links)
    assert {link.hosts for link in doubtful} == {pair for pair in pairs(_hosts(5)) if {"n1", "n3"} & set(pair)}
    again = [replace(link, gbit_per_second=9.0, latency_us=1.0) for link in doubtful if "n3" not in link.hosts]
    assert [problem.host for problem in blame(better(links, again))] == ["n3"]
    worse = [replace(link, gbit_per_second=0.5, latency_us=1.0) for link in links]
    assert better(_measured(5, set()), worse) == _measured(5, set())


class _Network:
    """Answers as hosts would of which some are dead, and some slow when asked for the first time."""

    def __init__(self, dead: Set[str] = frozenset(), slow_at_first: Set[str] = frozenset()) -> None:
        self.asked: list[list[str]] = []
        self._dead, self._slow = dead, {frozenset((host, other)) for host in slow_at_first for other in _hosts(5)}

    def ask(
        self, module: str, hosts: Sequence[str], request: str, *, timeout_seconds: float, parallel: int = 64
    ) -> list[Reply]:
        assert parallel >= len(hosts), "one would wait for another that is not started"
        self.asked.append(list(hosts))
        replies = []
        for pair in json.loads(request)["meetings"]:
            for host in pair:
                speed = 1.0 if frozenset(pair) in self._slow else 10.0
                facts = {"name": host, "gbit_per_second": speed, "latency_us": 5.0}
                if host in self._dead:
                    replies.append(Reply(host, None, f"{host}: is gone", 0.0, 1.0))
                else:
                    replies.append(Reply(host, {"error": "alone"} if self._dead & set(pair) else facts, None, 0.0, 1.0))
            self._slow.discard(frozenset(pair))
        return replies


def _looked(network: _Network) -> Verdict:
    return check_links(Verdict(tuple(_hosts(5)), ("link",), ()), network, port=1, device="cpu")


def test_a_dead_host_is_asked_once_and_its_peers_are_not_to_blame() -> None:
    network = _Network(dead={"n1"})
    verdict = _looked(network)
    assert [problem.line() for problem in verdict.problems] == ["n1: link: is gone"]
    assert sum("n1" in hosts for hosts in network.asked) == 1


def test_a_second_look_clears_a_host_that_was_slow_once() -> None:
    network = _Network(slow_at_first={"n2"})
    verdict = _looked(network)
    assert verdict.passed
    again = network.asked[len(rounds(pairs(_hosts(5)))) :]
    assert all("n2" in hosts and len(hosts) == 2 for hosts in again)
    assert len(again) == 4


def test_what_a_host_does_not_say_is_a_failed_link() -> None:
    measured = {"a": {"gbit_per_second": 3.0, "latency_us": 9.0}, "b": {"error": "x"}, "c": {"error": "timed out"}}
    meetings = [Meeting("a", "b"), Meeting("c", "d"), Meeting("e", "f")]
    assert links_of(measured, meetings) == [
        Link(("a", "b"), 3.0, 9.0),
        Link(("c", "d"), None, None, "timed out"),
        Link(("e", "f"), None, None, "e says nothing"),
    ]


def _config(*overrides: str) -> RunConfig:
    return load_config(RunConfig, DEMO, ["training.train_steps=100", "intervals.save_steps=10", *overrides])


def test_checkpoints_that_are_kept_at_a_time() -> None:
    assert kept_checkpoints(_config()) == 10
    assert kept_checkpoints(_config("intervals.save_steps=30")) == 4, "the last step has one too"
    assert kept_checkpoints(_config("checkpoints.keep.last=2")) == 3
    assert kept_checkpoints(_config("checkpoints.keep.last=2", "checkpoints.keep.every_steps=25")) == 2 + 2 + 1
    assert kept_checkpoints(_config("checkpoints.keep.last=50")) == 10


def test_room_for_them() -> None:
    config = _config("checkpoints.keep.last=2", "run_dir=/r")
    each = checkpoint_bytes(config)
    assert room_problem(config, there=0, free_bytes=3 * each) is None
    assert room_problem(config, there=0, free_bytes=3 * each - 1) == (
        f"/r: {3 * each / 1e9:.3g} GB are free, but the run needs {3 * each / 1e9:.3g} GB more: 3 checkpoints of "
        f"{each / 1e9:.3g} GB at a time, of which 0 are there; free space, or keep fewer (checkpoints.keep.last)"
    )
    assert room_problem(config, there=2, free_bytes=each) is None
    assert room_problem(config, there=9, free_bytes=each - 1) is not None, "the one that is written needs room"


def test_bytes_by_optimizer() -> None:
    adam = checkpoint_bytes(_config())
    assert checkpoint_bytes(_config("optimizer.kind=lion", "optimizer.lr=1e-4")) * 3 == adam * 2
    assert checkpoint_bytes(_config("optimizer.moment_precision=bf16", "optimizer.beta2=0.95")) * 3 == adam * 2
