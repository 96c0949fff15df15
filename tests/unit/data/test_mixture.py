"""Shares follow weights and sizes, and how often a source comes is counted, not estimated."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptdist.data.mixture import BLOCK, Mixture, weights_by_size

MIXTURE = Mixture([0.6, 0.3, 0.1], seed=3, names="abc")
SOURCES = [MIXTURE.locate(sample)[0] for sample in range(2 * BLOCK + 50)]


@settings(deadline=None)
@given(samples=st.integers(0, len(SOURCES)))
def test_counts_among_the_first_samples_are_those_of_a_walk(samples: int) -> None:
    walked = Counter(SOURCES[:samples])
    assert MIXTURE.counts_among(samples) == tuple(walked[k] for k in range(3))


def test_counts_far_out_cost_one_block() -> None:
    far = 10**12 + 1
    before, after = MIXTURE.counts_among(far - 1), MIXTURE.counts_among(far)
    assert sum(after) == far
    assert [b - a for a, b in zip(before, after, strict=True)].index(1) == MIXTURE.locate(far - 1)[0]


@settings(deadline=None)
@given(sample=st.integers(0, 2**62))
def test_the_sample_of_a_number_is_the_inverse_of_locate(sample: int) -> None:
    assert MIXTURE.sample_of(*MIXTURE.locate(sample)) == sample


def test_shares_add_up() -> None:
    assert MIXTURE.shares == (0.6, 0.3, 0.1)
    assert sum(Mixture([1, 1, 1], 0, "abc").counts) == BLOCK


def test_without_a_temperature_the_size_does_not_matter() -> None:
    assert weights_by_size([0.7, 0.3], [10**12, 5], None) == [0.7, 0.3]


def test_temperature_one_takes_every_source_in_proportion_to_its_size() -> None:
    assert weights_by_size([1.0, 1.0], [3_000_000_000_001, 7], 1.0) == [3_000_000_000_001.0, 7.0]


def test_a_larger_temperature_takes_more_of_the_small_one_up_to_equal_shares() -> None:
    small_shares = []
    for temperature in (1.0, 1.5, 3.0, 10.0, 1e9):
        large, small = weights_by_size([1.0, 1.0], [10**12, 10**9], temperature)
        assert small / large == pytest.approx(1000 ** (-1 / temperature))
        small_shares.append(small / (large + small))
    assert small_shares == sorted(small_shares)
    assert small_shares[-1] == pytest.approx(0.5)


def test_a_weight_is_a_factor_on_the_size() -> None:
    assert weights_by_size([2.0, 1.0], [10**10, 10**10], 5.0) == pytest.approx([200.0, 100.0])


def test_powers_are_the_same_digits_everywhere() -> None:
    """Golden values, to the last bit: another rounding would be another order of samples after a resume elsewhere."""
    found = weights_by_size([1.0] * 3, [123_456_789, 987_654_321_012, 31], 3.0)
    assert [value.hex() for value in found] == [
        "0x1.f1ef1165d120ap+8",
        "0x1.37356aef84228p+13",
        "0x1.9218c2df27726p+1",
    ]
