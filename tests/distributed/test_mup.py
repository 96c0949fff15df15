"""muP keeps the loss curve of a learning rate where the model gets wider; the usual initialisation does not."""

from pathlib import Path

import pytest

from tests.support.datasets import GPT2, run_tree
from tests.support.jobs import train_steps
from tests.support.ranks import run_ranks

STEPS = 12
HIGH = {"lr": 3e-2}
"""Near the highest rate that a width of 32 takes."""


def _losses(folder: Path, kind: str, width: int, **model: object) -> list[float]:
    shape = GPT2 | {"hidden_size": width, "num_attention_heads": width // 8} | model
    name = f"{model['init']}-{width}"
    optimizer = HIGH | {"kind": kind}
    tree = run_tree(folder, model=shape, run_dir=str(folder / name), optimizer=optimizer, training={"train_steps": 20})
    return [loss for _, loss, _ in run_ranks(1, train_steps, tree, STEPS)[0]]


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_the_learning_rate_of_a_narrow_model_is_that_of_a_wide_one(tmp_path: Path, kind: str) -> None:
    narrow, wide = (_losses(tmp_path, kind, width, init="mup", mup_base_hidden_size=32) for width in (32, 512))
    assert max(abs(a - b) for a, b in zip(narrow, wide, strict=True)) < 0.2  # 0.14 was seen
    assert narrow[0] - narrow[-1] > 2.0, "nothing was learnt"
    usual = _losses(tmp_path, kind, 512, init="gpt2")
    assert usual[-1] > narrow[-1] + 1.0, "the usual initialisation takes this rate as well: the test shows nothing"
