"""Which pairs of hosts are measured, and who is to blame for what comes out."""

import itertools

import pytest

from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from launch.preflight.disk import checkpoint_bytes, kept_checkpoints, room_problem
from launch.preflight.link_plan import blame, links_of, own_meetings, pairs, plan_tree, rounds
from launch.preflight.verdict import Link, Verdict
from tests.support.ranks import repository

DEMO = repository() / "configs" / "runs" / "demo-cpu.yaml"


def _hosts(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 16, 33, 1024])
def test_rounds_are_of_disjoint_pairs_and_each_host_has_others(count: int) -> None:
    schedule = rounds(_hosts(count))
    for meetings in schedule:
        names = [name for meeting in meetings for name in (meeting.first, meeting.second)]
        assert len(names) == len(set(names)), "a host is in two meetings at once"
    met = {frozenset((meeting.first, meeting.second)) for meetings in schedule for meeting in meetings}
    assert met == {frozenset(pair) for pair in pairs(_hosts(count))}
    assert len(met) == sum(map(len, schedule)), "a pair meets twice"
    peers = min(4, count - 1)
    assert all(sum(host in pair for pair in met) == peers for host in _hosts(count))
    assert len(schedule) <= 2 * peers - 1 or count == 2


def test_each_host_keeps_its_meetings_in_order() -> None:
    plan = plan_tree(rounds(_hosts(5)))
    for host in _hosts(5):
        own = own_meetings(plan, host)
        assert len(own) == 4
        assert [pair for one in plan for pair in one if host in pair] == [list(pair) for pair in own]


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


def test_what_a_host_does_not_say_is_a_failed_link() -> None:
    schedule = rounds(["a", "b", "c"])
    links = links_of({"a": [{"peer": "b", "gbit_per_second": 3.0, "latency_us": 9.0}]}, schedule)
    by_hosts = {link.hosts: link for link in links}
    assert by_hosts["a", "b"] == Link(("a", "b"), 3.0, 9.0)
    assert by_hosts["b", "c"].error == "b says nothing"


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
