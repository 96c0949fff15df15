"""A run goes on within a stage of other weights as if it had never stopped, also on another layout."""

from pathlib import Path

import pytest

from tests.support.datasets import run_tree
from tests.support.jobs import train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

SAVE, END = 3, 5
STAGES = [{"from_samples": 12, "weights": {"code": 1.0}}]


def test_a_stage_resumes_bit_for_bit_and_on_another_layout(tmp_path: Path) -> None:
    tree = run_tree(tmp_path, data={"stages": STAGES})
    whole = run_ranks(1, train_steps, tree, END, SAVE)[0]
    assert run_ranks(1, train_steps, tree, END)[0] == whole[SAVE:], "bit for bit"
    wide = run_ranks(
        2, train_steps, run_tree(tmp_path, data={"stages": STAGES}, **TestedLayout(2, 1, 1).sections()), END
    )
    assert [loss for _, loss, _ in wide[0]] == pytest.approx([loss for _, loss, _ in whole[SAVE:]], abs=5e-6)
    with pytest.raises(AssertionError, match=r"the first 24 samples held 1\d samples of .*data.stages: .* → \[\]"):
        run_ranks(1, train_steps, run_tree(tmp_path), END)
    plain = run_ranks(1, train_steps, run_tree(tmp_path, run_dir=str(tmp_path / "plain")), SAVE + 1)[0]
    assert abs(plain[SAVE][1] - whole[SAVE][1]) > 1e-4, "the stage changes nothing"
