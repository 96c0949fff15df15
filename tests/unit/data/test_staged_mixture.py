"""From a stage on other shares hold, exactly, and every source goes on where it was."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptdist.config.run import RunConfig
from gptdist.data.mixture import BLOCK, Mixture
from gptdist.data.plan import plan_data
from gptdist.data.sources import TrainingData
from gptdist.data.staged_mixture import StagedMixture
from tests.support.datasets import run_tree

WEIGHTS = ([0.6, 0.4, 0.0], [0.0, 0.5, 0.5], [0.1, 0.1, 0.8])
FIRSTS = (137, 137 + 2 * BLOCK)
MIXTURE = StagedMixture([Mixture(weights, 3, "abc") for weights in WEIGHTS], FIRSTS)
PLACES = [MIXTURE.locate(sample) for sample in range(FIRSTS[1] + BLOCK)]


def test_a_source_goes_on_where_it_was() -> None:
    for source in range(3):
        numbers = [number for one, number in PLACES if one == source]
        assert numbers == list(range(len(numbers))), "none comes twice, none is left out"


def test_shares_hold_in_the_blocks_of_each_stage() -> None:
    for begin, weights in ((FIRSTS[0], WEIGHTS[1]), (FIRSTS[0] + BLOCK, WEIGHTS[1]), (FIRSTS[1], WEIGHTS[2])):
        found = Counter(source for source, _ in PLACES[begin : begin + BLOCK])
        assert [found[k] for k in range(3)] == pytest.approx([BLOCK * weight for weight in weights])
    assert {source for source, _ in PLACES[: FIRSTS[0]]} == {0, 1}
    assert MIXTURE.shares_at(FIRSTS[0] - 1) == pytest.approx(WEIGHTS[0])
    assert MIXTURE.shares_at(FIRSTS[0]) == pytest.approx(WEIGHTS[1])


@settings(deadline=None)
@given(samples=st.integers(0, len(PLACES)))
def test_counts_among_the_first_samples_are_those_of_a_walk(samples: int) -> None:
    walked = Counter(source for source, _ in PLACES[:samples])
    assert MIXTURE.counts_among(samples) == tuple(walked[k] for k in range(3))


@settings(deadline=None)
@given(sample=st.one_of(st.integers(0, 2 * FIRSTS[1]), st.integers(0, 2**62)))
def test_the_sample_of_a_number_is_the_inverse_of_locate(sample: int) -> None:
    assert MIXTURE.sample_of(*MIXTURE.locate(sample)) == sample


def test_a_source_that_a_run_leaves_never_comes_further() -> None:
    mixture = StagedMixture([Mixture([0.5, 0.5], 3, "ab"), Mixture([0.0, 1.0], 3, "ab")], [100])
    count = mixture.counts_among(10**9)[0]
    assert mixture.sample_of(0, count - 1) is not None
    assert mixture.sample_of(0, count) is None


def _config(folder: Path, stages: list[dict], *, code: float = 0.3, **limits: float) -> RunConfig:
    tree = run_tree(folder, data={"stages": stages}, training={"train_steps": 30})
    tree["data"]["sources"][1] |= {"weight": code} | limits
    return RunConfig.from_tree(tree)


def test_a_plan_counts_what_a_run_with_stages_reads(tmp_path: Path) -> None:
    config = _config(tmp_path, [{"from_tokens": 100 * 32, "weights": {"code": 1.0}}], code=0.0)
    assert config.problems() == []
    data = TrainingData(config)
    addresses = [data.order.address(sample) for sample in range(240)]
    assert [address.source for address in addresses] == [0] * 100 + [1] * 140
    assert len({(one.source, one.epoch, one.first_token) for one in addresses}) == 240, "no window came twice"
    plan = plan_data(config, data.order)
    assert [source.samples for source in plan.sources] == [100, 140]
    assert plan.most_steps is None
    limited = _config(tmp_path, [{"from_samples": 100, "weights": {"code": 1.0}}], code=0.0, max_epochs=0.1)
    plan = plan_data(limited, data.order)
    assert plan.most_steps is not None
    assert plan_data(limited, data.order, steps=plan.most_steps).problems() == []
    assert plan_data(limited, data.order, steps=plan.most_steps + 1).problems()


def test_a_later_stage_does_not_change_what_comes_before(tmp_path: Path) -> None:
    plain, staged = (
        TrainingData(_config(tmp_path, stages)).order
        for stages in ([], [{"from_samples": 100, "weights": {"code": 1.0}}])
    )
    assert [plain.address(n) for n in range(100)] == [staged.address(n) for n in range(100)]
    assert [plain.address(n) for n in range(100, 140)] != [staged.address(n) for n in range(100, 140)]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"weights": {"code": 1.0}}, "data.stages[0]: needs from_samples or from_tokens, one of them"),
        ({"from_samples": 0, "weights": {"code": 1.0}}, "data.stages[0]: begins at sample 0, not behind 0; give"),
        ({"from_samples": 5, "weights": {"cod": 1.0, "code": 1.0}}, "data.stages[0].weights: 'cod' is no source; name"),
        ({"from_samples": 5, "weights": {"code": -1.0, "prose": 1.0}}, "data.stages[0].weights.code: must be at least"),
        ({"from_samples": 5, "weights": {"code": 0.0}}, "data.stages[0].weights: no source has a weight above 0"),
    ],
)
def test_what_makes_no_stage_is_told(tmp_path: Path, stage: dict, message: str) -> None:
    (problem,) = _config(tmp_path, [stage]).problems()
    assert problem.startswith(message)
