"""The order of samples is a pure function of (seed, sample): exact weights, every window once an epoch, 64 bits."""

import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptdist.data.mixture import BLOCK, Mixture
from gptdist.data.order import SampleOrder, evaluation_windows, num_windows
from gptdist.data.permutation import KeyedPermutation
from gptdist.errors import DataError


@settings(deadline=None)  # a busy machine is no failure
@given(size=st.integers(1, 3000), key=st.text(max_size=8))
def test_permutation_hits_every_number_once(size: int, key: str) -> None:
    permutation = KeyedPermutation(size, key)
    assert sorted(permutation[i] for i in range(size)) == list(range(size))


def test_permutation_depends_on_the_key_and_looks_random() -> None:
    size = 10_000
    first, second = ([KeyedPermutation(size, key)[i] for i in range(size)] for key in ("a", "b"))
    assert first != second
    # The number of fixed points of a random permutation is Poisson(1); of ascending neighbours, half.
    assert sum(value == i for i, value in enumerate(first)) < 8
    ascending = sum(a < b for a, b in pairwise(first))
    assert abs(ascending - size / 2) < 4 * (size / 12) ** 0.5


def test_permutation_of_a_huge_range() -> None:
    permutation = KeyedPermutation(2**62, "huge")
    values = {permutation[i] for i in range(1000)} | {permutation[2**62 - 1]}
    assert len(values) == 1001
    assert max(values) > 2**61


def test_permutation_is_the_same_in_every_process_and_version() -> None:
    """Golden values: another order would make old runs unresumable without a word."""
    assert [KeyedPermutation(100, "golden")[i] for i in range(8)] == [91, 89, 23, 15, 3, 40, 43, 41]
    assert [Mixture([1, 1], 1, "ab").locate(i)[0] for i in range(12)] == [0, 1, 0, 1, 1, 1, 1, 1, 1, 0, 1, 1]


@settings(deadline=None)  # a busy machine is no failure
@given(weights=st.lists(st.floats(0.1, 100), min_size=1, max_size=6), seed=st.integers(0, 2**63 - 1))
def test_mixture_is_exact_in_every_block(weights: list[float], seed: int) -> None:
    mixture = Mixture(weights, seed, [str(k) for k in range(len(weights))])
    assert sum(mixture.counts) == BLOCK
    for count, weight in zip(mixture.counts, weights, strict=True):
        assert abs(count - BLOCK * weight / sum(weights)) < 1


def test_mixture_numbers_each_source_without_gaps() -> None:
    mixture = Mixture([0.6, 0.3, 0.1], seed=3, names="abc")
    located = [mixture.locate(i) for i in range(2 * BLOCK)]
    assert Counter(source for source, _ in located) == {0: 12_000, 1: 6_000, 2: 2_000}
    for source, count in enumerate((12_000, 6_000, 2_000)):
        assert [number for k, number in located if k == source] == list(range(count)), "in order, without gaps"
    firsts = Counter(source for source, _ in located[:500])
    assert all(firsts[k] > 20 for k in range(3)), "mixed, not one source after the other"


def test_too_light_a_source_is_refused() -> None:
    with pytest.raises(DataError, match=r"'light' has a share of 1e-06, less than 1/10000 of .*; raise its weight"):
        Mixture([1.0, 1e-6], seed=0, names=["heavy", "light"])


def _order(**changes) -> SampleOrder:
    settings = {"names": ["a", "b"], "tokens": [3300, 1700], "weights": [0.5, 0.5], "seq_length": 16, "seed": 1}
    return SampleOrder(**(settings | changes))


def test_every_window_comes_once_an_epoch() -> None:
    order = _order(names=["a"], tokens=[3300], weights=[1.0])
    windows = order.windows[0]
    assert windows == (3300 - 1) // 16
    for epoch in range(60):
        seen = [order.address(epoch * windows + i) for i in range(windows)]
        assert {address.epoch for address in seen} == {epoch}
        assert sorted(address.first_token for address in seen) == [16 * i for i in range(windows)]


def test_a_small_source_in_a_mixture_is_used_up_before_it_repeats() -> None:
    order = _order()
    seen = [order.address(i) for i in range(BLOCK)]
    of_b = [(address.epoch, address.first_token) for address in seen if address.source == 1]
    windows = order.windows[1]
    for epoch in range(len(of_b) // windows):
        part = of_b[epoch * windows : (epoch + 1) * windows]
        assert {e for e, _ in part} == {epoch}
        assert len(set(part)) == windows


def test_the_longest_run_within_limits_is_exact() -> None:
    order = _order()
    seen = [order.address(i).source for i in range(500)]
    for limits in ((40, None), (None, 31), (40, 31), (0, 31)):
        most = order.most_samples(limits)
        assert most is not None
        assert all(limit is None or seen[:most].count(k) <= limit for k, limit in enumerate(limits))
        assert any(limit is not None and seen[: most + 1].count(k) > limit for k, limit in enumerate(limits))
    assert order.most_samples((None, None)) is None


def test_order_does_not_depend_on_history_and_does_on_the_seed() -> None:
    forward = [_order().address(i) for i in range(200)]
    fresh = _order()
    assert [fresh.address(i) for i in reversed(range(200))][::-1] == forward
    assert [_order(seed=2).address(i) for i in range(200)] != forward


def test_order_is_the_same_in_another_process() -> None:
    code = (
        "from gptdist.data.order import SampleOrder; "
        "o = SampleOrder(['a', 'b'], [3300, 1700], [0.5, 0.5], seq_length=16, seed=1); "
        "print([(o.address(i).source, o.address(i).first_token) for i in range(20)])"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    order = _order()
    assert seen.strip() == str([(order.address(i).source, order.address(i).first_token) for i in range(20)])


def test_start_up_does_not_grow_with_the_corpus() -> None:
    order = _order(tokens=[10**15, 10**14], seq_length=4096)
    far = order.address(10**12)
    assert far.first_token < 10**15
    assert order.address(0) != far


def test_a_source_shorter_than_a_sample_is_refused() -> None:
    with pytest.raises(DataError, match="'b' has 16 tokens, less than one sample of 16"):
        _order(tokens=[3300, 16])


def test_evaluation_windows_are_spread_evenly_and_never_outside() -> None:
    assert evaluation_windows(161, 16, samples=5) == [0, 32, 64, 96, 128]
    assert evaluation_windows(161, 16, samples=0) == [16 * i for i in range(10)]
    assert evaluation_windows(161, 16, samples=99) == evaluation_windows(161, 16, samples=0)
    assert evaluation_windows(16, 16, samples=5) == []
    assert num_windows(0, 16) == 0
